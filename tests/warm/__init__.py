"""Processes of Celery that need not import it again: forks of one interpreter that has imported everything.

Half of what the suite would do is importing, since it starts hundreds of workers and commands. Each of them is still a
process of its own, which runs `celery` as `python -m celery` does; it only begins with the modules loaded, as the
children of a prefork pool do. What it imports of the tests' own, or with an environment that changes Python, it imports
itself. `TASKSTATE_COLD_PROCESSES=1` starts all of them anew.
"""

from __future__ import annotations

from tests.warm.client import popen, run

__all__ = ["popen", "run"]
