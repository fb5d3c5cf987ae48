"""The rows of one task: its job row, steps, and what its subscribers are owed."""
