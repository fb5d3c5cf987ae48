"""One connection to a receiver: bounded in time and in bytes."""

from __future__ import annotations

import http.client
import io
import select
import socket
import time
from http import HTTPStatus
from typing import Any, Final, cast

from ssrfguard import Target

from ...settings.webhook_values import AllowedNetworks
from .resolving import open_socket, remaining

_KEPT_UNUSED: Final = 30.0


_KEPT_AT_ALL: Final = 300.0


class TooLargeError(Exception):
    """More came than is read."""


class StaleError(Exception):
    """A kept connection had been closed by the server before it was used again."""


class _Response(http.client.HTTPResponse):
    """An answer, with what announces it passed over (RFC 9110, 15.2); http.client does so with status 100 alone."""

    def _read_status(self) -> tuple[str, int, str]:
        while True:
            found: tuple[str, int, str] = super()._read_status()  # type: ignore[misc]  # typeshed hides it
            if not HTTPStatus.SWITCHING_PROTOCOLS < found[1] < HTTPStatus.OK:
                return found
            http.client.parse_headers(self.fp)


class Connection(http.client.HTTPConnection):
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
            raise TooLargeError(f"more than {self.limit} bytes came")
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
