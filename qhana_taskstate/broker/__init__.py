"""What is asked of the broker and of the workers behind it."""
