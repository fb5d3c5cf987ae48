"""A receiver of webhooks: a real HTTP server that keeps what it was told.

It listens on the loopback, and needs no pytest.
"""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final, Self
from urllib.parse import parse_qs, urlsplit

from ..webhooks.http.receiving import verify

#: Seconds that a client may be silent on an open connection.
_SILENCE_SECONDS: Final = 60


@dataclass(frozen=True, slots=True)
class Told:
    """One call, as it came.

    Attributes:
        path: Path of the URL.
        query: The query, decoded; the last value of each name.
        headers: By their names in lower case.
        message: The body, its signature verified if the receiver has secrets.
        came_at: By `time.monotonic()`.
        number: Position among all calls of the receiver, from 0.
    """

    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    message: Mapping[str, Any]
    came_at: float
    number: int

    @property
    def source(self) -> str:
        """The `task_href` that was subscribed with."""
        return self.query["source"]

    @property
    def event(self) -> str:
        """The event, such as `status`."""
        return self.query["event"]

    @property
    def message_id(self) -> str:
        """The `webhook-id`: the same over all attempts at one message."""
        return self.headers["webhook-id"]

    @property
    def sequence(self) -> int:
        """Number of the message among those of its subscription and event."""
        return int(self.message["data"]["sequence"])

    @property
    def status(self) -> str:
        """Status of the task when the message was made."""
        return str(self.message["data"]["status"])


@dataclass(frozen=True, slots=True)
class Reply:
    """What a receiver answers.

    Attributes:
        status: HTTP status.
        headers: Beside those that are always sent.
        body: The body.
    """

    status: int = 204
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


def _accept(told: Told) -> Reply:
    return Reply()


class WebhookReceiver:
    """Receives webhooks in threads until it is closed: `with WebhookReceiver() as receiver:`.

    A request that ends before its announced length is no call.

    Args:
        answer: Decides on the answer to a call; may wait. By default every call is answered with 204.
        secrets: With them a call whose signature does not fit is answered with 401 and not kept.
        port: Port to listen on; 0 is a free one.

    Attributes:
        calls: What it was told, in the order in which the calls came. Append-only.
        refused: How many calls had no fitting signature.
        tolerated: Faults that `check` passes over, of `signature`, `order` and `duplicate`. Where the test kills what
            delivers, duplicates are right: a call counts as made once its answer has arrived.
    """

    def __init__(
        self, answer: Callable[[Told], Reply] = _accept, *, secrets: Sequence[str] = (), port: int = 0
    ) -> None:
        self.calls: list[Told] = []
        self.refused = 0
        self.tolerated: set[str] = set()
        self.answer = answer
        self._script: deque[Reply] = deque()
        self._accepted: list[Told] = []
        self._secrets = list(secrets)
        self._guard = threading.Lock()
        self._server = _Server(("127.0.0.1", port), _handler_of(self))
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, name="webhook-receiver", daemon=True
        )
        self._thread.start()

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return int(self._server.server_address[1])

    def href(self, path: str = "/hook") -> str:
        """Return the URL of a path."""
        return f"http://127.0.0.1:{self.port}{path}"

    def told(self, *, event: str | None = None, source: str | None = None, path: str | None = None) -> list[Told]:
        """Return the calls so far, all of them or those that match."""
        return [
            call
            for call in list(self.calls)
            if event in (None, call.event) and source in (None, call.source) and path in (None, call.path)
        ]

    def answer_with(self, *replies: Reply | int) -> None:
        """Answer the next calls so, one after the other; what comes after them is answered as before.

        Args:
            replies: A `Reply`, or a status alone.
        """
        self._script.extend(Reply(reply) if isinstance(reply, int) else reply for reply in replies)

    def faults(self) -> dict[str, list[str]]:
        """Return what was wrong with the calls so far, by kind: `signature`, `order`, `duplicate`.

        `order`: of one subscription and event, a call with a lower sequence after one with a higher sequence.
        `duplicate`: a message that came again although its call was answered with 2xx.
        """
        found: dict[str, list[str]] = {}
        if self.refused:
            found["signature"] = [f"{self.refused} calls had no fitting signature"]
        newest: dict[tuple[str, str, str], int] = {}
        for call in list(self.calls):
            key = (call.path, call.source, call.event)
            if call.sequence < newest.get(key, 0):
                text = f"{call.event} {call.sequence} of {call.source} came after {newest[key]}"
                found.setdefault("order", []).append(text)
            newest[key] = max(call.sequence, newest.get(key, 0))
        accepted: set[tuple[str, str]] = set()
        for call in list(self._accepted):
            if (call.path, call.message_id) in accepted:
                text = f"{call.event} {call.sequence} of {call.source} came again"
                found.setdefault("duplicate", []).append(text)
            accepted.add((call.path, call.message_id))
        return found

    def check(self) -> None:
        """Check the calls so far.

        Raises:
            AssertionError: If something was wrong that is not in `tolerated`; it names each fault.
        """
        wrong = [text for kind, texts in self.faults().items() if kind not in self.tolerated for text in texts]
        if wrong:
            raise AssertionError("webhooks: " + "; ".join(wrong))

    def close(self) -> None:
        """Stop listening; calls under way are cut off."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def receive(self, target: str, headers: Mapping[str, str], body: bytes) -> Reply:
        """Keep one call and return the answer to it."""
        came_at = time.monotonic()
        parts = urlsplit(target)
        query = {name: values[-1] for name, values in parse_qs(parts.query, keep_blank_values=True).items()}
        try:
            message = verify(body, headers, self._secrets) if self._secrets else _unverified(body)
        except ValueError:
            self.refused += 1
            return Reply(401)
        with self._guard:
            told = Told(parts.path, query, headers, message, came_at, len(self.calls))
            self.calls.append(told)
            scripted = self._script.popleft() if self._script else None
        reply = self.answer(told) if scripted is None else scripted
        if 200 <= reply.status < 300:
            with self._guard:
                self._accepted.append(told)
        return reply


def _unverified(body: bytes) -> dict[str, Any]:
    message = json.loads(body)
    if not isinstance(message, dict):
        raise ValueError("the body is no JSON object")
    return message


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128


def _handler_of(receiver: WebhookReceiver) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = _SILENCE_SECONDS

        def do_POST(self) -> None:
            length = int(self.headers.get("content-length") or 0)
            body = self.rfile.read(length)
            if len(body) < length:
                # The caller was killed between the two: no call was made, and nobody waits for an answer.
                self.close_connection = True
                return
            headers = {name.lower(): value for name, value in self.headers.items()}
            reply = receiver.receive(self.path, headers, body)
            self.send_response(reply.status)
            for name, value in reply.headers.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(reply.body)))
            self.end_headers()
            self.wfile.write(reply.body)

        def handle_one_request(self) -> None:
            try:
                super().handle_one_request()
            except OSError:
                # The caller went away, as those who are killed do.
                self.close_connection = True

        def log_message(self, format: str, *args: Any) -> None:
            """Write nothing."""

    return Handler
