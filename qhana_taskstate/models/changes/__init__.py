"""What a session's changes lead to: in its flushes, its statements and its commits."""
