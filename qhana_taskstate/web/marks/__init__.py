"""What tasks look like, so that it is known whether something has changed."""
