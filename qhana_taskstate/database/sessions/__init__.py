"""Which session of SQLAlchemy is the current one."""
