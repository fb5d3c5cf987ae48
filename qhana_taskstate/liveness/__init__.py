"""Proves that a process is alive: on this machine by its id, from another one by a lock."""
