"""Waiting for the end of a task, and for the ends of many."""
