"""Which task the running code and the messages that it publishes belong to."""
