"""What a receiver's answer does to a delivery: a pure policy.

It knows no rows, no clock and no network. 2xx is success. 3xx and 4xx are the receiver's final answer, for both are
normal in QHAna: 303 after success, 404 for an event that a receiver does not care about. The rest is tried again.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Final, Literal

from ...clock import as_utc
from .client import Answer, Fault

#: The longest that a `Retry-After` is honoured, in seconds.
LONGEST_RETRY_AFTER: Final = 86400.0

#: A wait is longer or shorter than its schedule says by at most this part of it.
JITTER: Final = 0.2

#: Too early, slow or many: what is called again may be taken.
_RETRIED_4XX: Final = frozenset({408, 425, 429})
_WITH_RETRY_AFTER: Final = _RETRIED_4XX | {503}
_GONE: Final = 410

VerdictKind = Literal["delivered", "final", "retry", "dead", "gone", "refused"]


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What to do with a delivery after an attempt.

    Attributes:
        kind: `delivered`; `final`: the receiver said no, and that is that; `retry`; `dead`: the schedule is used up;
            `gone`: remove the subscription; `refused`: dead at once, webhooks may not go there.
        wait_seconds: Time until the next attempt; only with `retry`.
        reason: What was seen, for people.
    """

    kind: VerdictKind
    wait_seconds: float | None
    reason: str

    @property
    def counts_against_host(self) -> bool:
        """Whether the circuit breaker of the host counts this as a failure: it was worth another attempt."""
        return self.kind in {"retry", "dead"}


def decide(
    result: Answer | Fault,
    *,
    attempt: int,
    schedule: Sequence[float],
    now: datetime,
    random: Callable[[], float],
) -> Verdict:
    """Decide what an attempt's result does to its delivery.

    Args:
        result: What the transport returned.
        attempt: Which attempt this was; the first is 1.
        schedule: Seconds to wait before each further attempt. `len(schedule) + 1` attempts are made.
        now: The time, aware; a `Retry-After` date without a `Date` header is measured from it.
        random: Returns a number from 0 to 1; spreads waits, so that receivers are not called in waves.
    """
    if isinstance(result, Fault):
        reason = f"{result.kind}: {result.reason}"
        if result.kind == "refused":
            return Verdict("refused", None, reason)
    else:
        reason = f"answered {result.status}"
        kind = _settled(result.status)
        if kind is not None:
            return Verdict(kind, None, reason)
    if attempt > len(schedule):
        return Verdict("dead", None, f"{reason}; given up after {attempt} attempts")
    wait = max(0.0, schedule[attempt - 1] * (1 + JITTER * (2 * random() - 1)))
    if isinstance(result, Answer) and result.status in _WITH_RETRY_AFTER:
        asked = _asked_wait(result, now)
        if asked > wait:
            return Verdict("retry", asked, f"{reason}, asked to wait {asked:g} s")
    return Verdict("retry", wait, reason)


def _settled(status: int) -> VerdictKind | None:
    """Return what a status settles, None if it is tried again."""
    if 200 <= status < 300:
        return "delivered"
    if status == _GONE:
        return "gone"
    if 300 <= status < 500 and status not in _RETRIED_4XX:
        return "final"
    return None


def _asked_wait(answer: Answer, now: datetime) -> float:
    """Return the seconds that `Retry-After` asks for (RFC 9110, 10.2.3), at most a day; 0 if it says nothing."""
    text = (answer.retry_after or "").strip()
    if text.isascii() and text.isdigit():
        seconds = float(text[:10])
    else:
        until = _date(text)
        # Both by the receiver's clock, so that it may be wrong.
        seconds = 0.0 if until is None else (until - (_date(answer.date or "") or now)).total_seconds()
    return min(max(seconds, 0.0), LONGEST_RETRY_AFTER)


def _date(text: str) -> datetime | None:
    try:
        found = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return as_utc(found)
