"""The rows of tasks and executions, read into small frozen values."""
