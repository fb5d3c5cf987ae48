"""A process that changes a task and ends, or lets a forked child do so; what it uses comes from the environment.

Arguments: what to do (`exit` or `fork`), the id of the task.
"""

from __future__ import annotations

import os
import sys
import time
import warnings

from qhana_taskstate import ProcessingTask
from tests.apps.webhooks import taskstate


def change(task_id: int, value: float) -> None:
    """Change a task in a commit of its own."""
    with taskstate.session_scope() as session:
        session.get_one(ProcessingTask, task_id).progress_value = value
        session.commit()


def tell() -> None:
    """Tell of the change, as soon as details may be told again."""
    while not taskstate.deliverer.run():
        time.sleep(0.02)


def main(what: str, task_id: int) -> int:
    """Do it; returns the code to exit with."""
    change(task_id, 1)
    if what == "exit":
        return 0
    # So that the child inherits a used transport, and the threads that it does not have.
    taskstate.parts.waker.at_exit()
    tell()
    with warnings.catch_warnings():
        # Python 3.12 warns of what this is all about.
        warnings.simplefilter("ignore")
        child = os.fork()
    if child == 0:
        change(task_id, 2)
        tell()
        taskstate.parts.waker.at_exit()
        os._exit(0)
    _, status = os.waitpid(child, 0)
    change(task_id, 3)
    tell()
    return os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2])))
