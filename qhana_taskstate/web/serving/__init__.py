"""The server of our own."""
