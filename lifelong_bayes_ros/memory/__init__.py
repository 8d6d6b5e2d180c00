"""What the robot remembers: regimes, their reservoirs, recall, and consolidation between episodes."""
