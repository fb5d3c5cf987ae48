"""Connects to an address that was checked after its name was resolved."""

from __future__ import annotations

import queue
import socket
import threading
import time
from typing import Any

from ssrfguard import BlockedAddressError, Policy, Target, connect, resolve

from ...errors import WebhookTargetError
from ...settings.webhook_values import AllowedNetworks
from .addresses import policy_for, refused


def open_socket(target: Target, allowed: AllowedNetworks, deadline: float) -> socket.socket:
    """Look the host up once, and connect to one of the addresses of the answer that may be reached.

    There is no second look-up between check and connection, so a name that changes its answer gains nothing. Of a
    name with allowed and refused addresses only the allowed are tried.

    Args:
        target: From `origin`.
        allowed: What may be reached beyond public addresses.
        deadline: When to give up, by `time.monotonic()`.

    Raises:
        WebhookTargetError: If no address of the host may be reached.
        TimeoutError: If the deadline passed.
        OSError: If the host has no address, or none answered.
    """
    try:
        return _connected(target, policy_for(target.host, allowed), deadline)
    except BlockedAddressError as exc:
        raise WebhookTargetError(f"{target.scheme}://{target.host}:{target.port}", refused(exc)) from None


def _connected(target: Target, policy: Policy, deadline: float) -> socket.socket:
    addresses = resolve(target, policy=policy, resolver=_Lookup(deadline))[: policy.max_connection_attempts]
    for position, address in enumerate(addresses[:-1]):
        try:
            # A silent first address (IPv6 without a route) must leave time for the next.
            return connect((address,), policy=policy, timeout=remaining(deadline) / (len(addresses) - position))
        except OSError:
            continue
    return connect(addresses[-1:], policy=policy, timeout=remaining(deadline))


def remaining(deadline: float) -> float:
    """Return the seconds until a deadline of `time.monotonic()`.

    Raises:
        TimeoutError: If it has passed.
    """
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("the time for one attempt is used up")
    return left


class _Lookup:
    """`socket.getaddrinfo` with a deadline, which it does not have by itself."""

    def __init__(self, deadline: float) -> None:
        self._deadline = deadline

    def __call__(self, *arguments: Any) -> list[Any]:
        answers: queue.SimpleQueue[list[Any] | OSError] = queue.SimpleQueue()

        def ask() -> None:
            try:
                answers.put(list(socket.getaddrinfo(*arguments)))
            except OSError as exc:
                answers.put(exc)
            except UnicodeError as exc:
                answers.put(socket.gaierror(socket.EAI_NONAME, f"no usable host name: {exc}"))

        if arguments[-1] & socket.AI_NUMERICHOST:
            ask()
        else:
            # A look-up cannot be interrupted. A thread of its own is left to end by itself, and keeps no process.
            threading.Thread(target=ask, name="taskstate-lookup", daemon=True).start()
        try:
            answer = answers.get(timeout=remaining(self._deadline))
        except queue.Empty:
            raise TimeoutError("the look-up of the host took too long") from None
        if isinstance(answer, OSError):
            raise answer
        return answer
