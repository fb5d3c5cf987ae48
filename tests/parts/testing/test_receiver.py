"""The receiver of webhooks that tests and the demo use."""

from __future__ import annotations

import socket
from datetime import UTC, datetime

from qhana_taskstate.testing.receiver import WebhookReceiver
from qhana_taskstate.webhooks.http import message
from tests.parts.webhooks.conftest import SECRET

_BODY = b'{"data": {}}'


def _request(receiver: WebhookReceiver, *, signed: bool = True) -> bytes:
    headers = message.headers("msg_1", datetime.now(UTC), _BODY, [SECRET])
    lines = [
        "POST /hook?source=a&event=status HTTP/1.1",
        f"Host: 127.0.0.1:{receiver.port}",
        f"Content-Length: {len(_BODY)}",
        *(f"{name}: {value}" for name, value in headers.items() if signed or name != "webhook-signature"),
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + _BODY


def _send(receiver: WebhookReceiver, request: bytes) -> bytes:
    """Send a request and nothing more; return the answer."""
    answer = b""
    with socket.create_connection(("127.0.0.1", receiver.port), timeout=10) as connection:
        connection.sendall(request)
        connection.shutdown(socket.SHUT_WR)
        while part := connection.recv(1000):
            answer += part
    return answer


def test_signed_call_is_kept_and_one_without_signature_is_refused() -> None:
    with WebhookReceiver(secrets=[SECRET]) as receiver:
        assert _send(receiver, _request(receiver)).startswith(b"HTTP/1.1 204")
        assert _send(receiver, _request(receiver, signed=False)).startswith(b"HTTP/1.1 401")
        assert (len(receiver.calls), receiver.refused) == (1, 1)


def test_request_whose_caller_died_half_way_is_no_call() -> None:
    with WebhookReceiver(secrets=[SECRET]) as receiver:
        whole = _request(receiver)
        for length in (len(whole) - len(_BODY), len(whole) - 1):
            assert _send(receiver, whole[:length]) == b""
        assert _send(receiver, whole).startswith(b"HTTP/1.1 204")
        assert (len(receiver.calls), receiver.refused) == (1, 0)
