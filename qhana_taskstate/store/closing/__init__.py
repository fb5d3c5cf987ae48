"""Writes after which a task may have ended: a close, the release of a hold, a loss."""
