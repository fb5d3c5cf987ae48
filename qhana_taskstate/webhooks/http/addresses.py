"""The URL of a webhook: what may stand in it, and which addresses may be reached."""

from __future__ import annotations

import dataclasses
import functools
import ipaddress
from typing import Final
from urllib.parse import SplitResult, urlsplit

from ssrfguard import DEFAULT_DENIED, AddressTable, Block, BlockedAddressError, Policy, Reach, Target

from ...errors import WebhookTargetError
from ...settings.webhook_values import ENDS_IN_NUMBER, HOST, AllowedNetworks, a_label
from .shown_href import CONTROL, shown_href

#: The longest webhook URL, in characters.
MAX_HREF_CHARACTERS: Final = 2048


_PORTS: Final = {"http": 80, "https": 443}


_NO_TEXT: Final = "a text is needed"


_ALL_PORTS: Final = frozenset(range(1, 65536))


_EVERYWHERE: Final = ("0.0.0.0/0", "::/0")


def _table() -> AddressTable:
    """Return what is refused: the registries' special blocks and all that is not global unicast.

    Stricter than `ssrfguard`'s table in three points. What carries an IPv4 address inside (NAT64, 6to4, Teredo,
    mapped) is refused as a whole: where such a packet ends is decided by a gateway that nobody here knows. Exceptions
    for anycast services of protocols are left out: no receiver is there. And of IPv6 only 2000::/3 is given out to
    hosts (RFC 4291); the rest is reserved, or holds old translation prefixes.
    """
    blocks = [
        dataclasses.replace(block, reach=Reach.DENIED)
        for block in DEFAULT_DENIED.blocks
        if block.reach is not Reach.PERMITTED
    ]
    blocks += [
        Block(ipaddress.ip_network("::/0"), "Not Global Unicast", "RFC4291", Reach.DENIED),
        Block(ipaddress.ip_network("2000::/3"), "Global Unicast", "RFC4291", Reach.PERMITTED),
    ]
    return AddressTable(tuple(blocks))


_TABLE: Final = _table()


@functools.cache
def _policy(networks: tuple[str, ...]) -> Policy:
    return Policy(
        denied_networks=_TABLE,
        allowed_networks=tuple(ipaddress.ip_network(network) for network in networks),
        allowed_ports=_ALL_PORTS,
        # Only answers that passed the check are connected to, so a public address beside a private one is safe to
        # use; `localhost` has two addresses where only one may be allowed.
        on_partial_block="drop",
    )


def policy_for(host: str, allowed: AllowedNetworks) -> Policy:
    """Return which addresses may be connected to for a host, given as `origin` returns it."""
    return _policy(_EVERYWHERE if host.rstrip(".") in allowed.hosts else allowed.networks)


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
        raise WebhookTargetError(shown_href(href), refused(exc)) from None
    except ValueError as exc:
        raise WebhookTargetError(shown_href(href), str(exc)) from None


def _origin(href: object, allowed: AllowedNetworks) -> Target:
    if not isinstance(href, str):
        raise ValueError(_NO_TEXT)
    if CONTROL.search(href):
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
    policy = policy_for(host, allowed)
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


def refused(exc: BlockedAddressError) -> str:
    return f"webhooks go to public addresses{_HINT}, not to {exc.address}: {exc.reason}"
