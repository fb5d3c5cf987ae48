"""What no signal tells: work that was lost, rows that were locked, tasks that are old."""
