"""From what Celery says to facts that are recorded."""
