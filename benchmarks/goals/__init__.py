"""What is promised in numbers. Each module measures one subject and returns its goals, met or not."""
