"""Where a webhook may go: the check of its URL, and of the address that is connected to.

Addresses are judged and connected to by `ssrfguard`, with a table that is stricter than its own. Knows no HTTP.
"""

from __future__ import annotations

import ipaddress
import queue
import re
import socket
import threading
import time
from collections.abc import Iterable
from typing import Any, Final
from urllib.parse import SplitResult, urlsplit

from ssrfguard import (
    BlockedAddressError,
    Policy,
    Target,
    connect,
    resolve,
)

from .errors import WebhookTargetError
from .webhook_values import ENDS_IN_NUMBER, HOST, AllowedNetworks, a_label

#: The longest webhook URL, in characters.
MAX_HREF_CHARACTERS: Final = 2048

_PORTS: Final = {"http": 80, "https": 443}
_NO_TEXT: Final = "a text is needed"

_CONTROL: Final = re.compile(r"[\x00-\x20\x7f-\xa0\u2028\u2029\ud800-\udfff]")
_SHOWABLE: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):/*([^/?#\\]*)([^?#]*)(?:\?([^#]*))?", re.DOTALL)
_HOST_AND_PORT: Final = re.compile(r"(?:\[[^\]]*\]|[^:\[]*)(?::[0-9]*)?")


def check_href(href: object, allowed: AllowedNetworks) -> str:
    """Check a webhook's URL as far as that is possible without asking a name server.

    Args:
        href: The URL.
        allowed: What may be reached beyond public addresses.

    Returns:
        The URL, unchanged.

    Raises:
        WebhookTargetError: If it is no text, not http or https, carries credentials, has no host, a bad port, a control
            character or a space, is longer than `MAX_HREF_CHARACTERS`, or its host is an address (in whatever way
            of writing) that may not be reached, or `localhost`. The error shows neither credentials nor the values
            of the query.
    """
    if not isinstance(href, str):
        raise WebhookTargetError(shown_href(href), _NO_TEXT)
    if len(href) > MAX_HREF_CHARACTERS:
        raise WebhookTargetError(shown_href(href), f"it has {len(href)} characters, {MAX_HREF_CHARACTERS} are allowed")
    origin(href, allowed)
    return href


def origin(href: str, allowed: AllowedNetworks) -> Target:
    """Return scheme, host (A-label, lower case) and port of a webhook's URL.

    Raises:
        WebhookTargetError: As `check_href`, but for the length: what a call appends to the URL makes it longer.
    """
    try:
        return _origin(href, allowed)
    except BlockedAddressError as exc:
        raise WebhookTargetError(shown_href(href), _refused(exc)) from None
    except ValueError as exc:
        raise WebhookTargetError(shown_href(href), str(exc)) from None


def _origin(href: object, allowed: AllowedNetworks) -> Target:
    if not isinstance(href, str):
        raise ValueError(_NO_TEXT)
    if _CONTROL.search(href):
        raise ValueError("it holds a control character or a space; percent-encode it")
    try:
        parts = urlsplit(href)
    except ValueError:
        raise ValueError("it is no URL") from None
    if parts.scheme not in _PORTS:
        raise ValueError("only http and https are called")
    if "@" in parts.netloc:
        raise ValueError("it carries credentials; take them out")
    host, address = _host(parts)
    target = Target(parts.scheme, host, _port(parts), host, address)
    policy = allowed.policy(host)
    if address is not None:
        policy.check_address(address)
    elif _is_localhost(host) and not any(policy.permits_address(loopback) for loopback in ("127.0.0.1", "::1")):
        raise ValueError(f"{host} is this machine itself; webhooks go to public addresses{_HINT}")
    return target


_HINT: Final = " or to what taskstate_webhook_allowed_networks names"


def _is_localhost(host: str) -> bool:
    return f".{host.rstrip('.')}".endswith(".localhost")  # RFC 6761: with all names below it


def _host(parts: SplitResult) -> tuple[str, ipaddress.IPv4Address | ipaddress.IPv6Address | None]:
    raw = parts.hostname
    if not raw:
        raise ValueError("it has no host")
    try:
        host = a_label(raw)
    except ValueError:
        raise ValueError("its host is no usable name") from None
    if "%" in host:
        raise ValueError("its host holds a %, which neither names nor addresses may")
    bare = host.rstrip(".")
    try:
        address = ipaddress.ip_address(bare)
    except ValueError:
        if ENDS_IN_NUMBER.fullmatch(host):
            raise ValueError("its host is an IPv4 address in an unusual form; write it as four decimals") from None
        if not HOST.fullmatch(host):
            raise ValueError("its host is no usable name") from None
        return host, None
    return bare, address


def _port(parts: SplitResult) -> int:
    try:
        port = parts.port
    except ValueError:
        port = 0
    if port is None:
        return _PORTS[parts.scheme]
    if port == 0:
        raise ValueError("its port is no number from 1 to 65535")
    return port


def _refused(exc: BlockedAddressError) -> str:
    return f"webhooks go to public addresses{_HINT}, not to {exc.address}: {exc.reason}"


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
        return _connected(target, allowed.policy(target.host), deadline)
    except BlockedAddressError as exc:
        raise WebhookTargetError(f"{target.scheme}://{target.host}:{target.port}", _refused(exc)) from None


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


def shown_href(href: object) -> str:
    """Return a URL as it may be shown: without credentials, fragment, and values of the query; at most 300 characters.

    What cannot be told apart from credentials is left out too.
    """
    parts = _SHOWABLE.fullmatch(href.partition("#")[0]) if isinstance(href, str) else None
    if parts is None:
        return "(not shown)"
    scheme, authority, path, query = parts.groups()
    _credentials, at, host = authority.rpartition("@")
    if not _HOST_AND_PORT.fullmatch(host):
        return f"{scheme}://…"  # the part of a password before a slash looks like a port
    names = "&".join(f"{name}=…" if equals else "…" for name, equals, _ in _pairs(query)) if query else ""
    shown = f"{scheme}://{'…@' if at else ''}{host}{path}{'?' if names else ''}{names}"
    return _CONTROL.sub("�", shown if len(shown) <= 300 else f"{shown[:299]}…")


def _pairs(query: str) -> Iterable[tuple[str, str, str]]:
    return (pair.partition("=") for pair in query.split("&"))
