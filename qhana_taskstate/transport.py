"""One HTTP call to a webhook: bounded in time and memory, to checked addresses only. Knows no rows and no policy."""

from __future__ import annotations

import dataclasses
import http.client
import io
import os
import select
import socket
import ssl
import threading
import time
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final, Literal, cast
from urllib.parse import quote, urlsplit

from ssrfguard import Target

from .errors import WebhookTargetError
from .targets import open_socket, origin, remaining
from .webhook_values import AllowedNetworks

#: A body larger than this is not read to its end; its answer is a failed attempt. In bytes.
TOO_LARGE_BYTES: Final = 1024 * 1024

#: Status line and headers, in bytes.
_HEAD_BYTES: Final = 64 * 1024

_CHUNK_BYTES: Final = 8192

#: How many unused connections are kept, how long unused, and how long at all, in seconds: a name may move.
_KEPT: Final = 64
_KEPT_UNUSED: Final = 30.0
_KEPT_AT_ALL: Final = 300.0

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


class _TooLargeError(Exception):
    """More came than is read."""


class _StaleError(Exception):
    """A kept connection had been closed by the server before it was used again."""


class Transport:
    """Calls webhooks, and keeps connections alive between calls. Lives as long as its process; any thread may use it.

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
        self._pool = _Pool()

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
            except _StaleError:
                pass
        return self._attempt(pool, _Connection(target), message, deadline)

    def close(self) -> None:
        """Close the connections that are kept. The transport may be used again."""
        self._current_pool().clear()

    def _current_pool(self) -> _Pool:
        pool = self._pool
        if pool.pid != os.getpid():
            # Closing the inherited descriptors says nothing to the servers: the parent still has them open. The
            # parent's lock may be held by a thread that does not exist here, so it is not asked for.
            for connection in pool.connections:
                connection.shut()
            pool = self._pool = _Pool()
        return pool

    def _attempt(self, pool: _Pool, connection: _Connection, message: _Message, deadline: float) -> Answer | Fault:
        reusable = False
        fresh = connection.sock is None
        try:
            if fresh:
                connection.open(self._allowed, self._tls_context, deadline)
            answer, reusable = _exchange(connection, message, deadline, self._kept_bytes)
            return answer
        except WebhookTargetError as exc:
            return Fault("refused", exc.reason)
        except _TooLargeError as exc:
            return Fault("too_large", str(exc))
        except TimeoutError:
            return Fault("timeout", f"not done after {self._timeout:g} s")
        except OSError as exc:
            if not fresh and not connection.anything_came:
                raise _StaleError from exc
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


def _exchange(connection: _Connection, message: _Message, deadline: float, kept_bytes: int) -> tuple[Answer, bool]:
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
        raise _TooLargeError(f"status {response.status} with {response.length} bytes; {TOO_LARGE_BYTES} are read")
    excerpt = bytearray()
    size = 0
    while chunk := response.read(_CHUNK_BYTES):
        size += len(chunk)
        if size > TOO_LARGE_BYTES:
            raise _TooLargeError(f"status {response.status} with more than {TOO_LARGE_BYTES} bytes")
        excerpt += chunk[: max(0, kept_bytes - len(excerpt))]
    if response.length:
        raise http.client.HTTPException(f"status {response.status}, but {response.length} promised bytes did not come")
    return bytes(excerpt)


class _Pool:
    """The unused connections of one process, oldest first."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.connections: list[_Connection] = []
        self._lock = threading.Lock()

    def take(self, target: Target) -> _Connection | None:
        """Take the newest usable connection to a target out of the pool."""
        with self._lock:
            dead = [connection for connection in self.connections if not connection.is_usable()]
            self.connections = [connection for connection in self.connections if connection not in dead]
            found = next((kept for kept in reversed(self.connections) if kept.target == target), None)
            if found is not None:
                self.connections.remove(found)
        for connection in dead:
            connection.shut()
        return found

    def put(self, connection: _Connection) -> None:
        """Keep a connection; the oldest goes if there are too many."""
        connection.unused_since = time.monotonic()
        with self._lock:
            self.connections.append(connection)
            surplus = self.connections[:-_KEPT]
            self.connections = self.connections[-_KEPT:]
        for oldest in surplus:
            oldest.shut()

    def clear(self) -> None:
        """Close all of them."""
        with self._lock:
            connections, self.connections = self.connections, []
        for connection in connections:
            connection.shut()


class _Response(http.client.HTTPResponse):
    """An answer, with what announces it passed over (RFC 9110, 15.2); http.client does so with status 100 alone."""

    def _read_status(self) -> tuple[str, int, str]:
        while True:
            found: tuple[str, int, str] = super()._read_status()  # type: ignore[misc]  # typeshed hides it
            if not HTTPStatus.SWITCHING_PROTOCOLS < found[1] < HTTPStatus.OK:
                return found
            http.client.parse_headers(self.fp)


class _Connection(http.client.HTTPConnection):
    """A connection whose every operation ends at one deadline, and that reads no more than it was told to."""

    response_class = _Response
    auto_open = 0  # http.client would connect by name, without a check

    def __init__(self, target: Target) -> None:
        super().__init__(target.host, target.port)
        self.target = target
        self.unused_since = 0.0
        self._born = time.monotonic()
        self._bounded: _BoundedSocket | None = None

    def open(self, allowed: AllowedNetworks, tls_context: Any, deadline: float) -> None:
        """Connect to a checked address; for https also agree on keys, the certificate verified for the host name."""
        opened = open_socket(self.target, allowed, deadline)
        try:
            # Headers and body go out in one piece each; the second must not wait for an acknowledgement of the first.
            opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            opened.settimeout(remaining(deadline))
            if self.target.scheme == "https":
                opened = tls_context().wrap_socket(opened, server_hostname=self.target.host.rstrip("."))
        except BaseException:
            opened.close()
            raise
        self._bounded = _BoundedSocket(opened)
        self.sock = cast("Any", self._bounded)

    def begin(self, deadline: float, limit: int) -> None:
        """Set the end of what comes next, by `time.monotonic()`, and how many bytes may come."""
        if self._bounded is not None:
            self._bounded.begin(deadline, limit)

    def allow(self, limit: int) -> None:
        """Set anew how many bytes may come after `begin`."""
        if self._bounded is not None:
            self._bounded.limit = limit

    @property
    def anything_came(self) -> bool:
        """Whether a byte came since `begin`."""
        return self._bounded is not None and self._bounded.received > 0

    def is_usable(self) -> bool:
        """Return whether an unused connection is young and nothing came on it, not even its end."""
        now = time.monotonic()
        if self._bounded is None or now - self.unused_since > _KEPT_UNUSED or now - self._born > _KEPT_AT_ALL:
            return False
        return self._bounded.is_silent()

    def shut(self) -> None:
        """Close the socket. `close` leaves it open: http.client calls that before it reads a last answer."""
        self.close()
        bounded, self._bounded = self._bounded, None
        if bounded is not None:
            bounded.shut()


class _BoundedSocket:
    """What `http.client` needs of a socket, with one deadline for all operations and a limit on what is received.

    The timeout of a socket is one of single operations: a peer that sends a byte a second never meets it.
    """

    def __init__(self, opened: socket.socket) -> None:
        self._socket = opened
        self._deadline = 0.0
        self.limit = 0
        self.received = 0

    def begin(self, deadline: float, limit: int) -> None:
        self._deadline = deadline
        self.limit = limit
        self.received = 0

    def sendall(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            self._socket.settimeout(remaining(self._deadline))
            view = view[self._socket.send(view) :]

    def recv_into(self, buffer: memoryview) -> int:
        self._socket.settimeout(remaining(self._deadline))
        count = self._socket.recv_into(buffer)
        self.received += count
        if self.received > self.limit:
            raise _TooLargeError(f"more than {self.limit} bytes came")
        return count

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(_Stream(self))

    def is_silent(self) -> bool:
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        return not poll.poll(0)

    def close(self) -> None:
        """Do nothing: a last answer may still be read. `shut` closes."""

    def shut(self) -> None:
        self._socket.close()


class _Stream(io.RawIOBase):
    """The receiving side of a bounded socket. Closing it leaves the socket open."""

    def __init__(self, bounded: _BoundedSocket) -> None:
        self._bounded = bounded

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._bounded.recv_into(buffer)
