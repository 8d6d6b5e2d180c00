"""The online learner, pre-training of the task prior, and the state directory."""
