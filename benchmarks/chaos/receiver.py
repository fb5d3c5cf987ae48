"""Who is told by webhook: a real HTTP server that notes what it was told, and sometimes refuses."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

HOST = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Call:
    """One call that was answered with success.

    Attributes:
        at: Seconds since the epoch.
        plan: Number of the plan whose task it was about.
        event: What happened.
        sequence: Its number among the calls of this subscription and event.
        webhook_id: Names the notification, over all its attempts.
        status: Status of the task that it told.
    """

    at: float
    plan: int
    event: str
    sequence: int
    webhook_id: str
    status: str


class Receiver:
    """Takes calls on a free port; while `refuses` is set it answers that it cannot."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.refuses = False
        self.refused = 0
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                if receiver.refuses:
                    receiver.refused += 1
                    self._answer(503)
                    return
                receiver._note(self.path, self.headers.get("webhook-id") or "", body)
                self._answer(204)

            def _answer(self, code: int) -> None:
                self.send_response(code)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                """Write nothing."""

        self._server = ThreadingHTTPServer((HOST, 0), Handler)
        self._server.daemon_threads = True

    @property
    def address(self) -> str:
        """Where it listens."""
        return f"http://{HOST}:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _note(self, path: str, webhook_id: str, body: bytes) -> None:
        url = urlsplit(path)
        data = json.loads(body)["data"]
        event = parse_qs(url.query)["event"][0]
        plan = int(url.path.rpartition("/")[2])
        self.calls.append(Call(time.time(), plan, event, int(data["sequence"]), webhook_id, str(data["status"])))
