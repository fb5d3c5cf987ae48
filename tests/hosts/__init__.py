"""What hosts bring with them: their sessions, engines, transactions and tests."""
