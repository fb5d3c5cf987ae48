"""The rows of executions."""
