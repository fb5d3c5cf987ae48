"""Repairs what no signal tells of: lost work, ends that were not shown, tasks that are too old."""
