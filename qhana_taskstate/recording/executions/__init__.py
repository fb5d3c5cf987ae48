"""What is written of one execution that runs in this process: how it begins, and how it closes."""
