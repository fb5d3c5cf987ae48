"""The arguments of a plugin task: which it takes, and which are filled in."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from celery.utils.functional import head_from_fun

#: Name of the parameter and keyword by which today's plugins pass the id of their task.
TASK_ID_PARAMETER = "db_id"


def own_signature(function: Callable[..., Any], bind: bool) -> inspect.Signature:
    signature = inspect.signature(function)
    parameters = list(signature.parameters.values())
    return signature.replace(parameters=parameters[1:] if bind else parameters)


def header_of(function: Callable[..., Any], bind: bool) -> Any:
    header = head_from_fun(function, bound=bind)
    return header if bind else staticmethod(header)


def named_task_id(signature: inspect.Signature, args: Any, kwargs: Any) -> Any:
    """Return what a message gives a function for its `db_id`, by keyword or by position; None for nothing."""
    if TASK_ID_PARAMETER in kwargs:
        return kwargs[TASK_ID_PARAMETER]
    parameter = signature.parameters.get(TASK_ID_PARAMETER)
    if parameter is None or parameter.kind is parameter.KEYWORD_ONLY:
        return None
    position = list(signature.parameters).index(TASK_ID_PARAMETER)
    return args[position] if position < len(args) else None


def bind_arguments(signature: inspect.Signature, args: Any, kwargs: Any) -> inspect.BoundArguments:
    """Fit arguments to a plugin function; a missing `db_id` is allowed, since it is filled in.

    Raises:
        TypeError: As Python says it.
    """
    given = dict(kwargs)
    parameter = signature.parameters.get(TASK_ID_PARAMETER)
    if parameter is not None and TASK_ID_PARAMETER not in given:
        position = list(signature.parameters).index(TASK_ID_PARAMETER)
        if len(args) <= position or parameter.kind is parameter.KEYWORD_ONLY:
            given[TASK_ID_PARAMETER] = None
    return signature.bind(*args, **given)
