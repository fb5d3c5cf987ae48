"""Turns what Celery says into facts, and starts work."""
