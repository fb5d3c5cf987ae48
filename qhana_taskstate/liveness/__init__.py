"""Proof that a process lives."""
