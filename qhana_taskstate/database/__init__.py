"""The database: its engine, transactions, tables, schema and sessions."""
