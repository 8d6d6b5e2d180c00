"""Lives (task-shift runs), baselines, metrics and reports."""
