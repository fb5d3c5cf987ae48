"""Connections that are kept for the next call."""

from __future__ import annotations

import os
import threading
import time
from typing import Final

from ssrfguard import Target

from .connection import Connection

#: How many unused connections are kept, how long unused, and how long at all, in seconds: a name may move.
_KEPT: Final = 64


class Pool:
    """The unused connections of one process, oldest first."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.connections: list[Connection] = []
        self._lock = threading.Lock()

    def take(self, target: Target) -> Connection | None:
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

    def put(self, connection: Connection) -> None:
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
