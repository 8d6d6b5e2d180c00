"""What the robot remembers: regimes, reservoirs, recall, consolidation between episodes."""
