"""Subscribing webhooks to tasks: who subscribes, and the rows of it."""
