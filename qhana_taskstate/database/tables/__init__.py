"""Every table, once."""
