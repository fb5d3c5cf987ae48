"""The facts of a start: all of it is published, it failed, or it is not to be."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from sqlalchemy.exc import DBAPIError

from ..facts import ExecutionKey, Publication, TaskRef
from ..states import TaskStatus
from ..store.closing import holds
from ..store.task_end import from_outside
from ..store.task_end.outcome import Outcome
from .backlog import Fact
from .execution_recorder import ExecutionRecorder


def release(recorder: ExecutionRecorder, ref: TaskRef, hold_id: str, publications: Sequence[Publication]) -> None:
    """Record that a hold is over, and what was published meanwhile.

    Its lease is renewed until that is written: what was sent is not to be given up for want of the database.
    """
    seconds = recorder.settings.publish_deadline_seconds
    work = holds.release_script(ref, hold_id, publications, deadline_seconds=seconds)

    def written(outcome: Outcome) -> None:
        leave(recorder, hold_id)
        recorder.finish_showing(ref.task_id, outcome)

    try:
        recorder.record(Fact(ref.task_id, publications, work, written))
    except DBAPIError:
        leave(recorder, hold_id)
        raise


def leave(recorder: ExecutionRecorder, hold_id: str | None) -> None:
    """Renew the lease of a hold no more; None is none."""
    if hold_id is not None:
        recorder.pulse().remove_hold(hold_id)


def give_up(recorder: ExecutionRecorder, ref: TaskRef, hold_id: str | None, entry: str) -> None:
    """Record that a task has failed since its messages could not be sent."""
    leave(recorder, hold_id)
    work = partial(from_outside.end, task_id=ref.task_id, status=TaskStatus.ERROR, entry=entry)
    recorder.record(Fact(ref.task_id, entry, work, partial(recorder.finish_showing, ref.task_id)))


def withdraw(recorder: ExecutionRecorder, ref: TaskRef, key: ExecutionKey | None, hold_id: str | None) -> None:
    """End, once the database is back, a task whose start failed while it was committed.

    Args:
        recorder: Where facts go.
        ref: The task.
        key: Key of the message that the start registered, if it was one.
        hold_id: The hold of the start, if it had one.
    """
    work = partial(from_outside.withdraw, ref=ref, key=key, hold_id=hold_id)
    told = f"the start of task {ref.task_id} failed"
    recorder.backlog.add(Fact(ref.task_id, told, work, partial(recorder.finish_showing, ref.task_id)))
    recorder.pulse()
