"""The signals of the runner: its plugins send them by hand after a commit; ours are sent with the same arguments."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any, Final

from blinker import NamedSignal
from flask import Flask

from .. import registry
from ..models.subscription import told_by_deliveries


class TaskNotice(NamedSignal):
    """A signal about a task, sent as `(app, task_id=...)`.

    A receiver that asks during it which webhooks to call hears of none where our deliveries call them. Those are owed
    by the commit itself, so that nothing depends on somebody who sends this.
    """

    def send(self, *args: Any, **kwargs: Any) -> Any:
        """As blinker's."""
        state = registry.find()
        token = told_by_deliveries.set(state is not None and state.settings.webhooks)
        try:
            return super().send(*args, **kwargs)
        finally:
            told_by_deliveries.reset(token)


#: The status of a task has changed.
TASK_STATUS_CHANGED: Final = TaskNotice("task-status-changed")

#: A step was added or cleared.
TASK_STEPS_CHANGED: Final = TaskNotice("task-steps-changed")

#: Something else of a task has changed.
TASK_DETAILS_CHANGED: Final = TaskNotice("task-details-changed")

_OURS: Final = {
    "TASK_STATUS_CHANGED": TASK_STATUS_CHANGED,
    "TASK_STEPS_CHANGED": TASK_STEPS_CHANGED,
    "TASK_DETAILS_CHANGED": TASK_DETAILS_CHANGED,
}

#: The host's own of each of ours.
_hosts: Final[dict[TaskNotice, list[TaskNotice]]] = {signal: [] for signal in _OURS.values()}


def take_over() -> None:
    """Make notices of the signals of these names that loaded modules have. They keep their receivers. Twice is once."""
    for loaded in list(sys.modules.values()):
        if type(loaded) is not ModuleType:
            continue
        for name, ours in _OURS.items():
            found = vars(loaded).get(name)
            if type(found) is NamedSignal:
                found.__class__ = TaskNotice
            if isinstance(found, TaskNotice) and found is not ours and found not in _hosts[ours]:
                _hosts[ours].append(found)


def tell(signal: TaskNotice, app: Flask, task_id: int) -> None:
    """Send one of our signals, and the host's of that name."""
    for each in (signal, *_hosts[signal]):
        each.send(app, task_id=task_id)
