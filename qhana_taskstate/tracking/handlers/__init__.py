"""Handlers of the signals of Celery, by subject; `tracking.signals` connects them."""
