"""Which tasks are tracked without the decorator, and what makes plugin tasks of them."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any

from celery import Celery

from ..context.header import OWN_TASK_PREFIX
from ..plugin.arguments import TASK_ID_PARAMETER
from ..plugin.task_class import PluginTask, is_plugin_task
from ..plugin.unit_of_work import with_bookkeeping

logger = logging.getLogger(__name__)

#: Names of the tasks that Celery itself brings (celery 5.5 to 5.7, `app/builtins.py`).
_CELERYS_PREFIX = "celery."


def is_selected(name: str, patterns: Sequence[str], *, takes_id: bool = False) -> bool:
    """Tell whether a task is to be tracked without the decorator. Celery's own and ours never are.

    Args:
        name: Name of the Celery task.
        patterns: The setting `track`: names with wildcards; `db_id` means the tasks that have a parameter of that
            name. One that begins with `!` leaves tasks out, wherever it stands; where all do, every other task is
            tracked.
        takes_id: Whether its function has a parameter `db_id`.
    """
    if not patterns or name.startswith((_CELERYS_PREFIX, OWN_TASK_PREFIX)):
        return False
    if any(_fits(name, pattern[1:], takes_id) for pattern in patterns if pattern.startswith("!")):
        return False
    wanted = [pattern for pattern in patterns if not pattern.startswith("!")]
    return not wanted or any(_fits(name, pattern, takes_id) for pattern in wanted)


def _fits(name: str, pattern: str, takes_id: bool) -> bool:
    return takes_id if pattern == TASK_ID_PARAMETER else fnmatchcase(name, pattern)


def warn_of_unmatched(app: Celery, patterns: Sequence[str]) -> None:
    """Log which patterns fit no task of an app: most likely they are misspelt."""
    for pattern in patterns:
        if pattern.lstrip("!") == TASK_ID_PARAMETER:
            continue
        if not any(fnmatchcase(name, pattern.lstrip("!")) for name in app.tasks):
            logger.warning("taskstate_track names %r, but no task of this worker is called so", pattern)


def select(app: Celery, patterns: Sequence[str], task_class: type[PluginTask]) -> None:
    """Make plugin tasks of all selected tasks of an app, and plain ones again of those that no longer are.

    Args:
        app: The Celery app.
        patterns: The setting `track`.
        task_class: The class of plugin tasks.
    """
    if not app.finalized:  # type: ignore[attr-defined]  # not in the stubs
        # Not by looking them up, which would finalise it.
        return
    for task in list(app.tasks.values()):
        if is_selected(task.name, patterns, takes_id=_takes_id(task)):
            select_one(task, patterns, task_class)
        else:
            _release(task)


def select_one(task: Any, patterns: Sequence[str], task_class: type[PluginTask]) -> None:
    """Make a plugin task of a task, if it is selected; for one that was registered late. Arguments as for `select`."""
    if not patterns or task is None or is_plugin_task(task):
        return
    if is_selected(task.name, patterns, takes_id=_takes_id(task)):
        _make_plugin_task(task, task_class)


def _takes_id(task: Any) -> bool:
    """Tell whether the function of a task has a parameter `db_id`; asked of a plain one for each of its messages."""
    known: bool | None = vars(task).get("taskstate_takes_id")
    if known is None:
        found = getattr(task, "_orig_run", task.run)
        known = task.taskstate_takes_id = TASK_ID_PARAMETER in _signature_of(found).parameters
    return known


def is_plain(task: object) -> bool:
    """Tell whether a task was made without the decorator."""
    return "plain_class" in vars(type(task))


def _make_plugin_task(task: Any, task_class: type[PluginTask]) -> None:
    """Give a task the class that the decorator would have given it.

    The object stays the same, since modules, canvases and Celery's registry refer to it. A tracer, which refers to
    what it runs, must not have been built yet: Celery builds them after `worker_init`, and for each eager call
    (celery 5.5 to 5.7).
    """
    plain = type(task)
    # What Celery's retries on errors surround is looked up at each call (celery 5.5 to 5.7, `app/autoretry.py`).
    attribute = "_orig_run" if "_orig_run" in vars(task) else "run"
    function = getattr(task, attribute)
    body = with_bookkeeping(function)
    before = vars(task).get(attribute)
    members = {
        "__module__": plain.__module__,
        "__qualname__": plain.__qualname__,
        "__doc__": plain.__doc__,
        "plain_class": plain,
        "plain_body": before,
        "plugin_function": staticmethod(function),
        "plugin_signature": _signature_of(function),
        # Celery checks the arguments of functions, not those of classes.
        "checks_arguments": bool(task.typing) and hasattr(plain, "__header__"),
        "typing": False,
        # What Celery calls has no `self` in front: it is bound already.
        "run": staticmethod(body),
    }
    task.__class__ = type(plain.__name__, (task_class, plain), members)
    if before is not None:
        setattr(task, attribute, body)


def _release(task: Any) -> None:
    if not is_plain(task):
        return
    made = type(task)
    if made.plain_body is not None:
        setattr(task, "_orig_run" if "_orig_run" in vars(task) else "run", made.plain_body)
    task.__class__ = made.plain_class


def _signature_of(function: Any) -> inspect.Signature:
    try:
        return inspect.signature(function)
    except (TypeError, ValueError):
        # Some functions of C do not say.
        return inspect.signature(lambda *args, **kwargs: None)
