"""Measurements. `python -m benchmarks` compares tracked tasks with bare ones."""
