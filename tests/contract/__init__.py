"""What the package promises, tried from outside."""
