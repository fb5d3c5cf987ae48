"""JSON that notices every change made in it, at any depth."""
