"""What plugin code says about its work while it runs."""
