"""Whether an execution is still inside Celery's tracer, as any thread of its process can tell."""

from __future__ import annotations

from typing import Any


def is_on_stack(task: Any, request: Any) -> bool:
    """Tell whether the tracer of some thread or greenlet still has a request.

    The tracer pushes it before `task_prerun` and takes it away after `task_postrun`, whatever is raised in between
    (celery 5.5 to 5.7, `build_tracer`).

    Args:
        task: Celery's task object, to which the stack of requests belongs.
        request: The request, by identity.

    Returns:
        True also where that cannot be seen from another thread (Celery's `USE_FAST_LOCALS`).
    """
    local = getattr(getattr(task, "request_stack", None), "_local", None)
    storage = getattr(local, "__storage__", None)
    if not isinstance(storage, dict):
        return True
    # Copied in one step: other threads come and go.
    return any(found is request for stack in list(storage.values()) for found in list(stack.get("stack", ())))
