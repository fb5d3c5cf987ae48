"""What plugin code uses: the decorator, and what it reports while it runs."""
