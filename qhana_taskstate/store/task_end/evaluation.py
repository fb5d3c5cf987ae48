"""Looks whether a task has ended, where no execution ends it."""

from __future__ import annotations

from ...clock import now
from ...database.scripts.statement import Answers, Statement
from ...database.sessions.current import current_settings
from ...facts import TaskRef
from ...states import TaskStatus
from ..executions.conditions import token_of
from ..script import Script
from ..task.jobs import locking
from .conclusion import Look, Shown, conclude
from .outcome import Outcome


def evaluation(ref: TaskRef, *before: Statement) -> Script[Outcome]:
    """Return what looks whether a task has ended, under the lock of its job row.

    Args:
        ref: The task. Nothing of it ends if the token belongs to no task.
        before: What may let it end.
    """
    of_job = token_of(ref)
    # No execution brings it: none has to be told from the others.
    values = {**of_job, "of_celery_id": "", "moment": now(), "state": "", "counts_members": 0, "to_come": 0}
    statements = [locking(of_job), *before, *conclude(Shown(), values, webhooks=current_settings().webhooks)]
    return Script(statements=statements, conclude=_evaluated, at_once=True)


def _evaluated(answers: Answers) -> Outcome:
    locked = answers["job"].rows
    if not locked or locked[0][0] is not None:
        return Outcome()
    look = Look.of(answers["look"].rows[0])
    if look.end_status is None:
        return Outcome()
    return Outcome(changed=True, ended=TaskStatus(look.end_status), shown=look.copied)
