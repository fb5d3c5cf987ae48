"""The only writer of task state: Core statements on a connection that is handed in.

Nothing here commits.

Lock order: job row, executions by key, deliveries by id, `ProcessingTask` last. A transaction that holds a job row
never waits for a `ProcessingTask` row: a plugin may have changed that in a transaction that stays open for hours.
"""
