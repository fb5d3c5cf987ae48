"""The trace that OpenTelemetry is in, if somebody has loaded it here; it is never loaded by us."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from typing import Any, Final

#: Looked for among what is loaded, since it is asked for at each execution.
_API: Final = "opentelemetry.trace"

#: The header in which a trace travels, and how it looks (W3C Trace Context).
TRACE_HEADER: Final = "traceparent"
_TRACE_PARENT: Final = re.compile(r"(?!ff)[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}(-.*)?")

#: The id that means none.
_NO_TRACE: Final = "0" * 32


def trace_of(request: Any) -> str | None:
    """Return the id of the trace that an execution belongs to, 32 hexadecimal digits.

    That of the span that is open here, else the one that its message carries.

    Args:
        request: Celery's request of the execution.
    """
    span = _open_span() if _API in sys.modules else None
    if span is not None:
        return format(span.trace_id, "032x")
    if getattr(request, TRACE_HEADER, None) is None and TRACE_HEADER not in (getattr(request, "headers", None) or ()):
        return None
    return _in_header(_header_of(request))


def pass_on(headers: dict[str, Any], request: Any | None) -> None:
    """Let a message carry the trace that it is published in, unless it carries one already.

    Args:
        headers: Of the message.
        request: Celery's request of the execution that publishes it, if one does.
    """
    if TRACE_HEADER in headers:
        return
    span = _open_span() if _API in sys.modules else None
    if span is not None:
        headers[TRACE_HEADER] = f"00-{span.trace_id:032x}-{span.span_id:016x}-{int(span.trace_flags):02x}"
    elif request is not None:
        carried = _header_of(request)
        if carried is not None and _in_header(carried) is not None:
            headers[TRACE_HEADER] = carried


def _open_span() -> Any | None:
    api: Any = sys.modules[_API]
    if not hasattr(api, "get_current_span"):
        # Another thread is importing it.
        return None
    span = api.get_current_span().get_span_context()
    return span if span.is_valid else None


def _header_of(request: Any) -> object:
    # Celery makes attributes of the headers of a message, and keeps those of an eager call apart (celery 5.5 to 5.7).
    found = getattr(request, TRACE_HEADER, None)
    apart = getattr(request, "headers", None)
    return apart.get(TRACE_HEADER) if found is None and isinstance(apart, Mapping) else found


def _in_header(value: object) -> str | None:
    found = _TRACE_PARENT.fullmatch(value) if isinstance(value, str) else None
    return found[1] if found is not None and found[1] != _NO_TRACE else None
