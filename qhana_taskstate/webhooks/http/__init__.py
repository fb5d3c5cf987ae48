"""One call to a webhook. Knows neither Celery nor rows."""
