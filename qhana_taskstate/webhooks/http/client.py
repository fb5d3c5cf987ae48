"""One HTTP call, bounded in time and memory, to checked addresses only.

It knows no rows and no policy.
"""

from __future__ import annotations

import dataclasses
import http.client
import os
import ssl
import time
from collections.abc import Mapping
from typing import Final, Literal
from urllib.parse import quote, urlsplit

from ssrfguard import Target

from ...errors import WebhookTargetError
from ...settings.webhook_values import AllowedNetworks
from .addresses import origin
from .connection import Connection, StaleError, TooLargeError
from .pool import Pool

#: A body larger than this is not read to its end; its answer is a failed attempt. In bytes.
TOO_LARGE_BYTES: Final = 1024 * 1024


#: Status line and headers, in bytes.
_HEAD_BYTES: Final = 64 * 1024


_CHUNK_BYTES: Final = 8192


FaultKind = Literal["refused", "timeout", "connection", "protocol", "too_large"]


@dataclasses.dataclass(frozen=True)
class Answer:
    """A receiver's whole answer.

    Attributes:
        status: HTTP status, 200 to 999.
        retry_after: The `Retry-After` header, as sent.
        date: The `Date` header, as sent.
        excerpt: The beginning of the body as text, for people; without NUL characters.
    """

    status: int
    retry_after: str | None = None
    date: str | None = None
    excerpt: str = ""


@dataclasses.dataclass(frozen=True)
class Fault:
    """Why there is no answer.

    Attributes:
        kind: `refused`: webhooks may not go there. `timeout`: not done in time. `connection`: not reached, reset, or
            no trust in its certificate. `protocol`: what came is no HTTP, or not all of it came. `too_large`: the
            answer is larger than is read.
        reason: What was seen, for people; without the URL's query.
    """

    kind: FaultKind
    reason: str


class Transport:
    """Calls webhooks, and keeps connections alive between calls. One for each process; any thread may use it.

    Follows no redirect, reads no proxy, `.netrc` or cookie from anywhere, verifies certificates against the system's
    (`SSL_CERT_FILE` adds to them as usual). A forked child uses none of its parent's connections.
    """

    def __init__(self, allowed: AllowedNetworks, timeout_seconds: float, max_response_bytes: int = 16384) -> None:
        """Prepare; nothing is connected yet.

        Args:
            allowed: What may be reached beyond public addresses.
            timeout_seconds: Time for one call from the look-up of the host to the last byte of the answer.
            max_response_bytes: How much of an answer's body is kept.
        """
        self._allowed = allowed
        self._timeout = timeout_seconds
        self._kept_bytes = max_response_bytes
        self._context: ssl.SSLContext | None = None
        self._pool = Pool()

    def post(self, href: str, *, headers: Mapping[str, str], body: bytes) -> Answer | Fault:
        """Send one POST and read the answer.

        The letters of path and query are sent as they are, but for those outside ASCII, which are percent-encoded as
        UTF-8. A kept connection that the server had closed in the meantime is replaced by a fresh one, once.

        Args:
            href: The URL; its check is repeated here, and made on the address that is connected to.
            headers: Sent beside `Host` and `Content-Length`.
            body: Sent as it is.

        Returns:
            The answer whatever its status, or why there is none. Nothing that a receiver does raises.
        """
        deadline = time.monotonic() + self._timeout
        try:
            target = origin(href, self._allowed)
        except WebhookTargetError as exc:
            return Fault("refused", exc.reason)
        message = _Message(_path(href), {"Host": _authority(target), **headers}, body)
        pool = self._current_pool()
        kept = pool.take(target)
        if kept is not None:
            try:
                return self._attempt(pool, kept, message, deadline)
            except StaleError:
                pass
        return self._attempt(pool, Connection(target), message, deadline)

    def close(self) -> None:
        """Close the connections that are kept. The transport may be used again."""
        self._current_pool().clear()

    def _current_pool(self) -> Pool:
        pool = self._pool
        if pool.pid != os.getpid():
            # Closing the inherited descriptors says nothing to the servers: the parent still has them open. The
            # parent's lock may be held by a thread that does not exist here, so it is not asked for.
            for connection in pool.connections:
                connection.shut()
            pool = self._pool = Pool()
        return pool

    def _attempt(self, pool: Pool, connection: Connection, message: _Message, deadline: float) -> Answer | Fault:
        reusable = False
        fresh = connection.sock is None
        try:
            if fresh:
                connection.open(self._allowed, self._tls_context, deadline)
            answer, reusable = _exchange(connection, message, deadline, self._kept_bytes)
            return answer
        except WebhookTargetError as exc:
            return Fault("refused", exc.reason)
        except TooLargeError as exc:
            return Fault("too_large", str(exc))
        except TimeoutError:
            return Fault("timeout", f"not done after {self._timeout:g} s")
        except OSError as exc:
            if not fresh and not connection.anything_came:
                raise StaleError from exc
            return Fault("connection", _described(exc))
        except (http.client.HTTPException, ValueError) as exc:
            return Fault("protocol", _described(exc))
        finally:
            if reusable and pool is self._pool:
                pool.put(connection)
            else:
                connection.shut()

    def _tls_context(self) -> ssl.SSLContext:
        if self._context is None:
            self._context = ssl.create_default_context()
        return self._context


@dataclasses.dataclass(frozen=True)
class _Message:
    path: str
    headers: Mapping[str, str]
    body: bytes


def _path(href: str) -> str:
    parts = urlsplit(href)
    # Every printable ASCII character stays as it is.
    return quote(
        (parts.path or "/") + (f"?{parts.query}" if parts.query else ""), safe="".join(map(chr, range(33, 127)))
    )


def _authority(target: Target) -> str:
    host = f"[{target.host}]" if ":" in target.host else target.host.rstrip(".")
    return host if target.port == {"http": 80, "https": 443}[target.scheme] else f"{host}:{target.port}"


def _described(exc: Exception) -> str:
    text = str(exc)
    return f"{type(exc).__name__}: {text}"[:300].replace("\0", "�") if text else type(exc).__name__


def _exchange(connection: Connection, message: _Message, deadline: float, kept_bytes: int) -> tuple[Answer, bool]:
    """Send and read; return the answer and whether the connection may be used again."""
    connection.begin(deadline, _HEAD_BYTES)
    connection.request("POST", message.path, body=message.body, headers=dict(message.headers))
    response = connection.getresponse()
    if response.status < 200:
        raise http.client.HTTPException(f"status {response.status} is no answer")
    connection.allow(_HEAD_BYTES + 2 * TOO_LARGE_BYTES)  # chunks have heads of their own
    excerpt = _read_body(response, kept_bytes)
    answer = Answer(
        response.status,
        response.getheader("Retry-After"),
        response.getheader("Date"),
        excerpt.decode("utf-8", "replace").replace("\0", "�"),
    )
    return answer, not response.will_close and response.isclosed()


def _read_body(response: http.client.HTTPResponse, kept_bytes: int) -> bytes:
    if response.length is not None and response.length > TOO_LARGE_BYTES:
        raise TooLargeError(f"status {response.status} with {response.length} bytes; {TOO_LARGE_BYTES} are read")
    excerpt = bytearray()
    size = 0
    while chunk := response.read(_CHUNK_BYTES):
        size += len(chunk)
        if size > TOO_LARGE_BYTES:
            raise TooLargeError(f"status {response.status} with more than {TOO_LARGE_BYTES} bytes")
        excerpt += chunk[: max(0, kept_bytes - len(excerpt))]
    if response.length:
        raise http.client.HTTPException(f"status {response.status}, but {response.length} promised bytes did not come")
    return bytes(excerpt)
