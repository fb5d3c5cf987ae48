"""Questions about tasks, answered from the rows."""
