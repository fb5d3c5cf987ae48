"""Celery apps that the tests' workers load."""
