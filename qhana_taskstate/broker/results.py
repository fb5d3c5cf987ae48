"""What Celery's result backend says of an execution, where there is one."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

from celery import Celery
from celery.result import GroupResult

from ..facts import StoredSuccess

logger = logging.getLogger(__name__)


#: Celery's word for a stored success.
_SUCCESS = "SUCCESS"


def stored_success(app: Celery, celery_id: str) -> StoredSuccess | None:
    try:
        result = app.AsyncResult(celery_id)
        if str(result.state) != _SUCCESS:
            return None
        sent = frozenset(str(node.id) for child in result.children or () for node in _messages_of(child))
        # Celery stores the id of the group of a chord's member too (celery 5.5 to 5.7).
        meta = result._get_task_meta()  # type: ignore[attr-defined]  # not in the stubs
        return StoredSuccess(sent=sent, in_group=bool(meta.get("group_id")))
    except Exception as exc:
        # The absence of a stored result proves nothing, so that a backend that is away is no reason to stop.
        logger.debug("no result of %s: %s", celery_id, type(exc).__name__)
        return None


def _messages_of(result: Any) -> Iterator[Any]:
    """Go through the results of single messages in what Celery notes as sent by a task."""
    if isinstance(result, GroupResult):
        for member in result.results or ():
            yield from _messages_of(member)
    else:
        yield result
        # A chord is noted as its body, whose header comes before it.
        if isinstance(result.parent, GroupResult):
            yield from _messages_of(result.parent)
