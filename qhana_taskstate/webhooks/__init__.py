"""Tells subscribers of changes: from the outbox to the receiver."""

from __future__ import annotations

from .http.receiving import verify

__all__ = ["verify"]
