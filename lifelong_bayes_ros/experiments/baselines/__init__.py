"""What the learner has to beat, one method a file, all behind the interface of `agents.Agent`."""
