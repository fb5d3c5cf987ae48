"""How executions leave Celery's tracer."""
