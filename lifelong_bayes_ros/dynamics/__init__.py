"""What the robot believes about its own motion: trunk features, Gaussian heads, noise, Belief."""
