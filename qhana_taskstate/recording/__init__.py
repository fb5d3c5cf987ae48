"""Turns facts about executions into short transactions."""
