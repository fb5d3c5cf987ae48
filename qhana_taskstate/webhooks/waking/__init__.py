"""The messages that wake the deliveries: which one is on its way, and how one is sent."""
