"""The thread that sends our own messages."""

from __future__ import annotations

import threading

from qhana_taskstate.webhooks.waking.sender import Sender


def test_what_was_to_be_sent_is_sent_before_a_drain_returns() -> None:
    sent: list[int] = []
    gate = threading.Event()
    sender = Sender()
    sender.send(lambda: sent.extend([0] if gate.wait(10) else []))
    for number in (1, 2, 3):
        sender.send(lambda number=number: sent.append(number))  # type: ignore[misc]

    assert not sender.drain(0.05)
    assert sent == []
    gate.set()

    assert sender.drain(10)
    assert sent == [0, 1, 2, 3]


def test_message_that_cannot_be_sent_holds_nobody_up() -> None:
    sender = Sender()

    def fail() -> None:
        raise ConnectionError("the broker is away")

    sender.send(fail)
    assert sender.drain(10)
    assert sender.drain(0)


def test_nothing_to_send_is_no_wait() -> None:
    assert Sender().drain(0)
