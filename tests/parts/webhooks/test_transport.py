"""One call: against receivers that behave, and all those that do not. Each is a real server on the loopback."""

from __future__ import annotations

import os
import socket
import ssl
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import trustme

from qhana_taskstate.settings.webhook_values import AllowedNetworks
from qhana_taskstate.webhooks.http.client import TOO_LARGE_BYTES, Answer, Fault, Transport
from tests.waiting import wait_until

LOOPBACK = AllowedNetworks.parse(["127.0.0.0/8"])
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

Script = Callable[[socket.socket, bytes], bool | None]


class Receiver:
    """A server that reads whole requests and answers each by a script; True from it keeps the connection."""

    def __init__(self, script: Script, host: str = "127.0.0.1", context: ssl.SSLContext | None = None) -> None:
        self.requests: list[bytes] = []
        self.connections = 0
        self._script = script
        self._context = context
        self._open: list[socket.socket] = []
        self._server = socket.create_server((host, 0))
        self.port = int(self._server.getsockname()[1])
        self.href = f"{'https' if context else 'http'}://{host}:{self.port}"
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._server.accept()
            except OSError:
                return
            self.connections += 1
            self._open.append(connection)
            self._threads.append(threading.Thread(target=self._serve, args=(connection,)))
            self._threads[-1].start()

    def _serve(self, plain: socket.socket) -> None:
        with suppress(OSError, ValueError), plain:
            connection = self._context.wrap_socket(plain, server_side=True) if self._context else plain
            self._open.append(connection)
            with connection:
                while (request := _read_request(connection)) is not None:
                    self.requests.append(request)
                    if not self._script(connection, request):
                        return

    def close(self) -> None:
        """Stop all of it."""
        # A thread that waits in accept is not woken by close alone.
        with suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        for connection in list(self._open):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in list(self._threads):
            thread.join(5)
            assert not thread.is_alive()
        for connection in list(self._open):
            connection.close()


def _read_request(connection: socket.socket) -> bytes | None:
    received = b""
    while b"\r\n\r\n" not in received:
        chunk = connection.recv(65536)
        if not chunk:
            return None
        received += chunk
    head, _, body = received.partition(b"\r\n\r\n")
    length = next(
        int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")
    )
    while len(body) < length:
        body += connection.recv(65536)
    return head + b"\r\n\r\n" + body


@contextmanager
def receiver(script: Script | bytes, **options: Any) -> Iterator[Receiver]:
    """Run a receiver; bytes are what it answers to everything, keeping the connection."""

    def answer(connection: socket.socket, _request: bytes) -> bool:
        assert isinstance(script, bytes)
        connection.sendall(script)
        return True

    running = Receiver(answer if isinstance(script, bytes) else script, **options)
    try:
        yield running
    finally:
        running.close()


@pytest.fixture
def transport() -> Iterator[Transport]:
    made = Transport(LOOPBACK, 0.4)
    yield made
    made.close()


def post(transport: Transport, href: str, body: bytes = b"{}", **headers: str) -> Answer | Fault:
    return transport.post(href, headers=headers, body=body)


def fault(result: Answer | Fault) -> str:
    assert isinstance(result, Fault), result
    assert result.reason
    return result.kind


# What is sent, and what comes back


def test_request_is_sent_to_the_letter(transport: Transport) -> None:
    with receiver(OK) as server:
        href = f"{server.href}/a/../%7eb%2f?x=%c3%a4&y=a|b&source=http%3A%2F%2Fp%2F#part"
        answer = transport.post(href, headers={"webhook-id": "msg_1", "user-agent": "x"}, body=b'{"a": 1}')
        head, _, body = server.requests[0].partition(b"\r\n\r\n")

    assert answer == Answer(200, None, None, "ok")
    lines = head.split(b"\r\n")
    assert lines[0] == b"POST /a/../%7eb%2f?x=%c3%a4&y=a|b&source=http%3A%2F%2Fp%2F HTTP/1.1"
    assert sorted(line.lower() for line in lines[1:]) == [
        b"accept-encoding: identity",
        b"content-length: 8",
        f"host: 127.0.0.1:{server.port}".encode(),
        b"user-agent: x",
        b"webhook-id: msg_1",
    ]
    assert body == b'{"a": 1}'


@pytest.mark.parametrize(("path", "sent"), [("", "/"), ("?a=b", "/?a=b"), ("/ä?ö", "/%C3%A4?%C3%B6")])
def test_path_is_made_sendable(transport: Transport, path: str, sent: str) -> None:
    with receiver(OK) as server:
        post(transport, f"{server.href}{path}")
        assert server.requests[0].startswith(f"POST {sent} HTTP/1.1\r\n".encode())


def test_headers_that_the_policy_needs_are_returned(transport: Transport) -> None:
    reply = b"HTTP/1.1 503 No\r\nRetry-After: 7\r\nDate: today\r\nContent-Length: 5\r\n\r\n\xffa\x00b\n"
    with receiver(reply) as server:
        assert post(transport, server.href) == Answer(503, "7", "today", "�a�b\n")


@pytest.mark.parametrize("status", [201, 204, 303, 304, 404, 410, 429, 500, 999])
def test_every_status_is_an_answer(transport: Transport, status: int) -> None:
    with receiver(b"HTTP/1.1 %d X\r\nContent-Length: 0\r\n\r\n" % status) as server:
        assert post(transport, server.href) == Answer(status)


def test_redirect_is_not_followed(transport: Transport) -> None:
    with receiver(OK) as other:
        reply = f"HTTP/1.1 307 Go\r\nLocation: {other.href}/\r\nContent-Length: 0\r\n\r\n".encode()
        with receiver(reply) as server:
            assert post(transport, server.href) == Answer(307)
            assert (len(server.requests), other.connections) == (1, 0)


@pytest.mark.parametrize(
    "before",
    [
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 102 Processing\r\n\r\n" * 3,
        b"HTTP/1.1 103 Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n",
    ],
)
def test_what_announces_an_answer_is_passed_over(transport: Transport, before: bytes) -> None:
    with receiver(before + OK) as server:
        assert post(transport, server.href) == Answer(200, excerpt="ok")
        assert post(transport, server.href) == Answer(200, excerpt="ok")
        assert server.connections == 1


@pytest.mark.parametrize(
    "reply",
    [
        b"HTTP/1.0 200 OK\r\n\r\nto the end",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nto the\r\n4\r\n end\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 10\r\n\r\nto the end",
    ],
)
def test_bodies_are_read_in_every_form(transport: Transport, reply: bytes) -> None:
    def script(connection: socket.socket, _: bytes) -> None:
        connection.sendall(reply)

    with receiver(script) as server:
        assert post(transport, server.href) == Answer(200, excerpt="to the end")
        assert post(transport, server.href) == Answer(200, excerpt="to the end")


def test_proxies_of_the_environment_are_ignored(transport: Transport, monkeypatch: pytest.MonkeyPatch) -> None:
    with receiver(OK) as server, receiver(OK) as proxy:
        for name in ("http_proxy", "https_proxy", "all_proxy"):
            monkeypatch.setenv(name, proxy.href)
            monkeypatch.setenv(name.upper(), proxy.href)
        assert post(transport, server.href) == Answer(200, excerpt="ok")
        assert (server.connections, proxy.connections) == (1, 0)


def test_netrc_is_ignored(transport: Transport, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login joe password hunter2\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with receiver(OK) as server:
        post(transport, server.href)
        assert b"authorization" not in server.requests[0].lower()


# Where it may go


@pytest.mark.parametrize("href", ["http://10.0.0.1/", "ftp://127.0.0.1/", "http://u:p@127.0.0.1/", "nonsense", ""])
def test_url_that_is_refused_is_a_fault(transport: Transport, href: str) -> None:
    assert fault(post(transport, href)) == "refused"


def test_name_of_a_private_address_is_refused_without_a_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    with receiver(OK) as server:
        real = socket.getaddrinfo
        monkeypatch.setattr(socket, "getaddrinfo", lambda _host, *rest: real("127.0.0.1", *rest))
        strict = Transport(AllowedNetworks(), 0.4)
        assert fault(post(strict, f"http://host.example:{server.port}/")) == "refused"
        assert server.connections == 0


def test_unknown_name_is_a_connection_fault(transport: Transport, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "unknown")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    assert fault(post(transport, "http://host.example/")) == "connection"


# Bad receivers


def drip(connection: socket.socket, data: bytes) -> None:
    for byte in data * 100:
        connection.sendall(bytes([byte]))
        time.sleep(0.03)


def silent(connection: socket.socket, _: bytes) -> None:
    connection.recv(1)


def head_by_bytes(connection: socket.socket, _: bytes) -> None:
    drip(connection, b"HTTP/1.1 200 OK\r\nX: y\r\n")


def body_by_bytes(connection: socket.socket, _: bytes) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
    drip(connection, b"x")


def chunks_by_bytes(connection: socket.socket, _: bytes) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    drip(connection, b"1\r\nx\r\n")


def continue_for_ever(connection: socket.socket, _: bytes) -> None:
    drip(connection, b"HTTP/1.1 100 Continue\r\n\r\n")


def body_that_stops(connection: socket.socket, _: bytes) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nx")
    connection.recv(1)


@pytest.mark.parametrize(
    "script", [silent, head_by_bytes, body_by_bytes, chunks_by_bytes, continue_for_ever, body_that_stops]
)
def test_slow_receiver_costs_no_more_than_the_timeout(transport: Transport, script: Script) -> None:
    with receiver(script) as server:
        begun = time.monotonic()
        assert fault(post(transport, server.href)) == "timeout"
        assert time.monotonic() - begun < 1.5


def test_receiver_that_takes_no_data_costs_no_more_than_the_timeout(transport: Transport) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server:
        begun = time.monotonic()
        href = f"http://127.0.0.1:{server.getsockname()[1]}/"
        assert fault(transport.post(href, headers={}, body=b"x" * 20_000_000)) == "timeout"
        assert time.monotonic() - begun < 1.5


def test_receiver_that_does_not_shake_hands_costs_no_more_than_the_timeout(transport: Transport) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        begun = time.monotonic()
        assert fault(post(transport, f"https://127.0.0.1:{server.getsockname()[1]}/")) == "timeout"
        assert time.monotonic() - begun < 1.5


def reset(connection: socket.socket, _: bytes) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")


def reset_in_the_body(connection: socket.socket, request: bytes) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nx")
    time.sleep(0.05)
    reset(connection, request)


def goodbye(_connection: socket.socket, _: bytes) -> None:
    """Close without an answer."""


@pytest.mark.parametrize("script", [reset, reset_in_the_body, goodbye])
def test_reset_is_a_connection_fault(transport: Transport, script: Script) -> None:
    with receiver(script) as server:
        assert fault(post(transport, server.href)) == "connection"
        assert len(server.requests) == 1


def test_nobody_there_is_a_connection_fault(transport: Transport) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert fault(post(transport, f"http://127.0.0.1:{port}/?token=hunter2")) == "connection"


@pytest.mark.parametrize(
    "reply",
    [
        b"SSH-2.0-OpenSSH_9.9\r\n",
        b"\x00\x01\x02\x03\r\n\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 99 X\r\n\r\n",
        b"HTTP/1.1 101 Switch\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\nshort",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200 + b"\r\n",
    ],
)
def test_what_is_no_whole_answer_is_a_protocol_fault(transport: Transport, reply: bytes) -> None:
    def script(connection: socket.socket, _: bytes) -> None:
        connection.sendall(reply)

    with receiver(script) as server:
        assert fault(post(transport, server.href)) == "protocol"


def endless(head: bytes, chunk: bytes) -> Script:
    def script(connection: socket.socket, _: bytes) -> None:
        connection.sendall(head)
        for _round in range(2000):
            connection.sendall(chunk)

    return script


MEGABYTES = b"x" * 65536


@pytest.mark.parametrize(
    "script",
    [
        endless(b"HTTP/1.1 200 OK\r\n\r\n", MEGABYTES),
        endless(b"HTTP/1.1 200 OK\r\nContent-Length: 50000000\r\n\r\n", MEGABYTES),
        endless(b"HTTP/1.1 200 OK\r\nContent-Length: 9" + b"9" * 30 + b"\r\n\r\n", MEGABYTES),
        endless(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"10000\r\n" + MEGABYTES + b"\r\n"),
        endless(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", b"X: y\r\n" * 1000),
        endless(b"HTTP/1.1 200 OK\r\nX: ", MEGABYTES),
        endless(b"HTTP/1.1 200 OK\r\n", b"X: " + b"y" * 5000 + b"\r\n"),
        endless(b"HTTP/1.1 200 ", MEGABYTES),
        endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 1000),
    ],
)
def test_endless_answer_costs_little_memory_and_is_a_fault(script: Script) -> None:
    patient = Transport(LOOPBACK, 5)
    with receiver(script) as server:
        begun = time.monotonic()
        tracemalloc.start()
        try:
            kind = fault(post(patient, server.href))
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert kind in {"too_large", "protocol"}
        assert peak < 2 * TOO_LARGE_BYTES
        assert time.monotonic() - begun < 4


def test_long_page_is_an_answer_of_which_the_beginning_is_kept(transport: Transport) -> None:
    page = b"x" * 100_000
    with receiver(b"HTTP/1.1 404 No\r\nContent-Length: %d\r\n\r\n%s" % (len(page), page)) as server:
        assert post(transport, server.href) == Answer(404, excerpt="x" * 16384)
        brief = Transport(LOOPBACK, 1, max_response_bytes=0)
        assert post(brief, server.href) == Answer(404)
        brief.close()


def test_more_than_promised_does_not_reach_the_next_answer(transport: Transport) -> None:
    with receiver(OK + b"HTTP/1.1 500 Forged\r\nContent-Length: 0\r\n\r\n") as server:
        assert [post(transport, server.href) for _ in range(3)] == [Answer(200, excerpt="ok")] * 3


# Connections


def test_connection_is_used_again(transport: Transport) -> None:
    with receiver(OK) as server:
        for _ in range(5):
            assert post(transport, server.href) == Answer(200, excerpt="ok")
        assert (server.connections, len(server.requests)) == (1, 5)


def test_burst_to_many_receivers_uses_one_connection_each(transport: Transport) -> None:
    with receiver(OK, host="127.0.0.2") as one, receiver(OK, host="127.0.0.3") as two, receiver(OK) as three:
        for _ in range(4):
            for server in (one, two, three):
                assert post(transport, server.href) == Answer(200, excerpt="ok")
        assert [server.connections for server in (one, two, three)] == [1, 1, 1]


def test_answers_without_a_body_and_bad_statuses_keep_the_connection(transport: Transport) -> None:
    with receiver(b"HTTP/1.1 500 No\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n") as server:
        assert [post(transport, server.href) for _ in range(2)] == [Answer(500, excerpt="abc")] * 2
        assert server.connections == 1


def test_connection_that_the_server_closed_is_replaced(transport: Transport) -> None:
    def once(connection: socket.socket, _: bytes) -> None:
        connection.sendall(OK)

    with receiver(once) as server:
        for _ in range(3):
            assert post(transport, server.href) == Answer(200, excerpt="ok")
        assert server.connections == 3


def test_connection_closed_under_the_request_is_replaced_once(transport: Transport) -> None:
    answered: list[bytes] = []

    def second_request_is_dropped(connection: socket.socket, request: bytes) -> bool:
        answered.append(request)
        if len(answered) == 2:
            return False
        connection.sendall(OK)
        return True

    with receiver(second_request_is_dropped) as server:
        for _ in range(2):
            assert post(transport, server.href) == Answer(200, excerpt="ok")
        assert (server.connections, len(server.requests)) == (2, 3)


def test_reset_within_an_answer_on_a_kept_connection_is_no_reason_to_send_again(transport: Transport) -> None:
    def script(connection: socket.socket, request: bytes) -> bool:
        if b"/bad" in request:
            reset_in_the_body(connection, request)
            return False
        connection.sendall(OK)
        return True

    with receiver(script) as server:
        post(transport, server.href)
        assert fault(post(transport, f"{server.href}/bad")) == "connection"
        assert len(server.requests) == 2


def test_close_closes_what_is_kept_and_can_be_followed_by_a_call(transport: Transport) -> None:
    with receiver(OK) as server:
        post(transport, server.href)
        transport.close()
        assert post(transport, server.href) == Answer(200, excerpt="ok")
        assert server.connections == 2


def test_threads_share_one_transport(transport: Transport) -> None:
    def echo(connection: socket.socket, request: bytes) -> bool:
        body = request.partition(b"\r\n\r\n")[2]
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
        return True

    patient = Transport(LOOPBACK, 5)
    with receiver(echo) as server, ThreadPoolExecutor(8) as threads:
        bodies = [f"number {number}" for number in range(200)]
        answers = list(threads.map(lambda body: post(patient, server.href, body.encode()), bodies))
        patient.close()
        assert answers == [Answer(200, excerpt=body) for body in bodies]
        assert server.connections <= 8


def test_forked_child_uses_no_connection_of_its_parent(transport: Transport) -> None:
    with receiver(OK) as server:
        post(transport, server.href)
        pid = os.fork()
        if pid == 0:
            code = 1
            with suppress(BaseException):
                code = 0 if post(transport, server.href) == Answer(200, excerpt="ok") else 2
            os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert server.connections == 2
        assert post(transport, server.href) == Answer(200, excerpt="ok")
        assert server.connections == 2


# Certificates


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def tls(authority: trustme.CA, name: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)
    return context


def test_trusted_certificate_is_accepted_and_the_connection_used_again(
    authority: trustme.CA, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    patient = Transport(LOOPBACK, 5)
    with receiver(OK, context=tls(authority, "127.0.0.1")) as server:
        for _ in range(3):
            assert post(patient, server.href) == Answer(200, excerpt="ok")
        patient.close()
        assert server.connections == 1


def test_certificate_of_a_name_is_checked_against_the_name_not_the_address(
    authority: trustme.CA, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    real = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", lambda _host, *rest: real("127.0.0.1", *rest))
    patient = Transport(LOOPBACK, 5)
    with receiver(OK, context=tls(authority, "host.example")) as server:
        assert post(patient, f"https://host.example:{server.port}/") == Answer(200, excerpt="ok")
        assert b"host: host.example:%d\r\n" % server.port in server.requests[0].lower()
        patient.close()
        assert fault(post(patient, f"https://other.example:{server.port}/")) == "connection"


def test_unknown_certificate_is_a_connection_fault(authority: trustme.CA) -> None:
    with receiver(OK, context=tls(authority, "127.0.0.1")) as server:
        result = post(Transport(LOOPBACK, 5), server.href)
        assert fault(result) == "connection"
        assert isinstance(result, Fault)
        assert "certificate" in result.reason
        assert server.requests == []


def test_tls_receiver_that_answers_byte_by_byte_costs_no_more_than_the_timeout(
    authority: trustme.CA, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    with receiver(head_by_bytes, context=tls(authority, "127.0.0.1")) as server:
        begun = time.monotonic()
        assert fault(post(Transport(LOOPBACK, 0.6), server.href)) == "timeout"
        assert time.monotonic() - begun < 2
        wait_until("the request was received", lambda: len(server.requests) == 1)
