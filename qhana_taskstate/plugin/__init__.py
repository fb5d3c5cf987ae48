"""What a plugin task is, and what its code reports while it runs."""
