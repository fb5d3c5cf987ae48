"""Durable, true task state for Celery."""
