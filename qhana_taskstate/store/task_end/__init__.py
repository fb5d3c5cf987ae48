"""The end of a task: whether it has come, and what it writes."""
