"""Writes that may bring a task to its end."""
