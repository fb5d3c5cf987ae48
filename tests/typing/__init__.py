"""Right and wrong use as type checkers see it. Nothing here is run; mypy reads it with the rest of the code.

Each wrong use names the error that is expected, and mypy says where one does not come (`warn_unused_ignores`).
"""
