"""What subscribers are owed, as the tests look at it."""

from __future__ import annotations

from sqlalchemy import delete, select

from qhana_taskstate import ProcessingTask, TaskState
from qhana_taskstate.database.tables.deliveries import change_table

#: Nobody listens there.
NOBODY = "http://127.0.0.1:9/hook"

#: What webhooks name as their source.
TASK = "https://plugin.example/tasks/7/?a=b"


def subscribed_task(state: TaskState, *, event: str | None = None, webhook_href: str = NOBODY) -> ProcessingTask:
    """Save a task that one webhook is subscribed to."""
    task = saved_task(state)
    state.subscribe(task, webhook_href, TASK, event=event)
    return task


def saved_task(state: TaskState) -> ProcessingTask:
    """Save a task that nobody is subscribed to."""
    # Where a test made several, the models use the last one.
    state.app.set_current()
    task = ProcessingTask("watched")
    task.save(commit=True)
    return task


def take_owed(state: TaskState, task_id: int) -> list[str]:
    """Return the events of a task that were written since the last call, in order of their names, and remove them."""
    mine = change_table.c.task_id == task_id
    with state.database.transaction() as connection:
        owed = [row.event for row in connection.execute(select(change_table.c.event).where(mine))]
        connection.execute(delete(change_table).where(mine))
    return sorted(owed)
