"""How far a task has come."""
