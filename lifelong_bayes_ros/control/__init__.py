"""Acting on the Belief: planner, costs and the last, separate safety stage."""
