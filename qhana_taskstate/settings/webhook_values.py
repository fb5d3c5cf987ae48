"""What the settings for webhooks may say: secrets, and allowed networks."""

from __future__ import annotations

import base64
import binascii
import dataclasses
import ipaddress
import re
from collections.abc import Iterable
from typing import Final, Self

_SECRET_PREFIX: Final = "whsec_"  # noqa: S105 - what secrets begin with
_SECRET_BYTES: Final = range(24, 65)  # Standard Webhooks 1.0.0, "Signature scheme"
_LONGEST_NAME: Final = 253  # RFC 1035, in text

#: A host name in lower case and as A-labels.
# Underscores are no part of a host name by RFC 1123, but names of compose services have them.
HOST: Final = re.compile(r"(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.?")
#: A host that resolvers take for an address, not for a name.
# A last label that is a number makes resolvers read the whole host as an IPv4 address: 127.1, 0177.0.0.1, 0x7f000001.
ENDS_IN_NUMBER: Final = re.compile(r"(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)\.?")


def check_secret(text: str) -> str:
    """Check the form of a Standard Webhooks secret: `whsec_` and the base64 of 24 to 64 random bytes.

    Returns:
        The secret, unchanged.

    Raises:
        ValueError: If it has another form. The secret is not shown.
    """
    if not isinstance(text, str):
        raise ValueError(f"a webhook secret is a text, not {type(text).__name__}")
    if not text.startswith(_SECRET_PREFIX):
        raise ValueError(f"a webhook secret begins with {_SECRET_PREFIX}")
    encoded = text.removeprefix(_SECRET_PREFIX)
    try:
        # The library ignores characters outside the alphabet, which would make another key of a mistyped one.
        key = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError(f"what follows {_SECRET_PREFIX} in a webhook secret is base64") from None
    if len(key) not in _SECRET_BYTES:
        raise ValueError(
            f"a webhook secret holds {_SECRET_BYTES.start} to {_SECRET_BYTES.stop - 1} bytes, this one {len(key)}"
        )
    return text


@dataclasses.dataclass(frozen=True)
class AllowedNetworks:
    """What webhooks may reach beyond public addresses. A value; made once from a setting.

    Attributes:
        networks: Address blocks, as CIDRs.
        hosts: Host names, in lower case and as A-labels. They are allowed whatever they resolve to.
    """

    networks: tuple[str, ...] = ()
    hosts: frozenset[str] = frozenset()

    @classmethod
    def parse(cls, texts: Iterable[str]) -> Self:
        """Read the setting.

        Args:
            texts: CIDRs (`10.0.0.0/8`), single addresses, and host names (`receiver`, `hooks.example`).

        Raises:
            ValueError: If one of them is none of these; it is named.
        """
        networks: list[str] = []
        hosts: set[str] = set()
        for text in texts:
            entry = text.strip()
            network = _network(entry)
            if network is None:
                hosts.add(_host_name(entry))
            else:
                networks.append(network)
        return cls(tuple(networks), frozenset(hosts))


def _network(text: str) -> str | None:
    bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    try:
        return str(ipaddress.ip_network(bare))
    except ValueError as exc:
        if "/" in text or ":" in text or ENDS_IN_NUMBER.fullmatch(text.lower()):
            raise ValueError(f"{text!r} is no network, address or host name: {exc}") from None
    return None


def _host_name(text: str) -> str:
    try:
        host = a_label(text).rstrip(".")
    except ValueError:
        host = ""
    if not HOST.fullmatch(host):
        raise ValueError(f"{text!r} is no network, address or host name")
    return host


def a_label(host: str) -> str:
    """Return a host name in lower case and as A-labels.

    Raises:
        ValueError: If it can be no name.
    """
    if len(host) > _LONGEST_NAME:
        raise ValueError("longer than a name can be")
    return host.lower() if host.isascii() else host.encode("idna").decode("ascii").lower()
