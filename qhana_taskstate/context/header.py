"""The message header that says which task a message belongs to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from ..facts import TaskRef

#: The one message header of this package. Set once, never grown, carried on by Celery through retries.
HEADER: Final = "qhana_taskstate"


#: Celery tasks whose names start so are our own and never belong to a task.
OWN_TASK_PREFIX: Final = "qhana_taskstate."


def ref_of_request(request: Any) -> TaskRef | None:
    """Find the task of a Celery request.

    The header is in `request.headers` of `task.request`; without a broker (eager) only there, in the worker's
    own requests in `request_dict` (celery 5.5 to 5.7).
    """
    headers = getattr(request, "headers", None)
    found = TaskRef.decode(headers.get(HEADER)) if isinstance(headers, Mapping) else None
    if found is None:
        found = TaskRef.decode(getattr(request, HEADER, None))
    if found is None:
        request_dict = getattr(request, "request_dict", None)
        found = TaskRef.decode(request_dict.get(HEADER)) if isinstance(request_dict, Mapping) else None
    return found
