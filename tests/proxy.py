"""A TCP proxy that cuts connections in the middle of a statement."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from typing import Literal, Self

HOST = "127.0.0.1"
_CHUNK = 65536
_CONNECT_SECONDS = 2.0

#: What is cut: everything at once; what is said next, half-way; the answer to what is said next, which is then
#: done without anybody knowing.
Cut = Literal["now", "request", "answer"]


class Pair:
    """A client's connection and the server's that belongs to it."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self.client = client
        self.server = server
        self.cut: Cut | None = None
        self.asked = False

    def close(self) -> None:
        """Close both sides at once."""
        for end in (self.client, self.server):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


class CuttingProxy:
    """Listens on a free port of 127.0.0.1 and passes everything on to another one, until it is told to cut.

    Args:
        target: Port of the server.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self._listener = socket.create_server((HOST, 0))
        self.port: int = self._listener.getsockname()[1]
        self._pairs: set[Pair] = set()
        self._guard = threading.Lock()
        #: How many connections were cut.
        self.cuts = 0

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()
        for pair in self._all():
            pair.close()

    def cut(self, how: Cut) -> int:
        """Cut all connections of now, as soon as `how` says.

        Returns:
            How many there are.
        """
        pairs = self._all()
        for pair in pairs:
            if how == "now":
                self._cut(pair)
            else:
                pair.cut = how
        return len(pairs)

    def _all(self) -> list[Pair]:
        with self._guard:
            return list(self._pairs)

    def _cut(self, pair: Pair) -> None:
        self.cuts += 1
        pair.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection((HOST, self._target), timeout=_CONNECT_SECONDS)
            except OSError:
                client.close()
                continue
            server.settimeout(None)
            for end in (client, server):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            pair = Pair(client, server)
            with self._guard:
                self._pairs.add(pair)
            threading.Thread(target=self._pass_requests, args=(pair,), daemon=True).start()
            threading.Thread(target=self._pass_answers, args=(pair,), daemon=True).start()

    def _pass_requests(self, pair: Pair) -> None:
        with suppress(OSError):
            while said := pair.client.recv(_CHUNK):
                if pair.cut == "request":
                    pair.server.sendall(said[: len(said) // 2])
                    self._cut(pair)
                    break
                pair.asked = pair.cut == "answer"
                pair.server.sendall(said)
        self._end(pair)

    def _pass_answers(self, pair: Pair) -> None:
        with suppress(OSError):
            while answered := pair.server.recv(_CHUNK):
                if pair.asked:
                    self._cut(pair)
                    break
                pair.client.sendall(answered)
        self._end(pair)

    def _end(self, pair: Pair) -> None:
        pair.close()
        with self._guard:
            self._pairs.discard(pair)
