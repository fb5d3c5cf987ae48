"""How long the lease of a running execution holds without a heartbeat: the defaults, and the rule between the two."""

from __future__ import annotations

from typing import Final

from ..errors import SettingsError

#: Defaults of `taskstate_heartbeat_seconds`, `taskstate_lost_after_seconds` and `taskstate_hold_seconds`.
HEARTBEAT_SECONDS: Final = 10.0
LEASE_SECONDS: Final = 30.0
HOLD_SECONDS: Final = 35.0

#: A lease holds at least for so many heartbeats.
_FEWEST_HEARTBEATS: Final = 2


def check_lease_time(heartbeat_seconds: float, lease_seconds: float) -> None:
    """Check that a lease holds for longer than a healthy process takes to renew it.

    Args:
        heartbeat_seconds: The setting `taskstate_heartbeat_seconds`.
        lease_seconds: The setting `taskstate_lost_after_seconds`.

    Raises:
        SettingsError: If it does not.
    """
    if lease_seconds < _FEWEST_HEARTBEATS * heartbeat_seconds:
        raise SettingsError(
            f"taskstate_lost_after_seconds is {lease_seconds:g}, taskstate_heartbeat_seconds "
            f"{heartbeat_seconds:g}: healthy tasks would look lost; make it at least twice the heartbeat"
        )
