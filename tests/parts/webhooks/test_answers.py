"""What an answer does to a delivery, line by line of the table."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qhana_taskstate.webhooks.http.answers import LONGEST_RETRY_AFTER, Verdict, decide
from qhana_taskstate.webhooks.http.client import Answer, Fault, FaultKind

NOW = datetime(2026, 11, 23, 12, 0, 0, tzinfo=UTC)
SCHEDULE = (5.0, 300.0, 1800.0)


def decided(result: Answer | Fault, attempt: int = 1, chance: float = 0.5, **changes: Any) -> Verdict:
    arguments: dict[str, Any] = {"schedule": SCHEDULE, "now": NOW, "random": lambda: chance, **changes}
    return decide(result, attempt=attempt, **arguments)


@pytest.mark.parametrize("status", [200, 201, 202, 204, 226, 299])
def test_2xx_is_delivered(status: int) -> None:
    verdict = decided(Answer(status))
    assert verdict == Verdict("delivered", None, f"answered {status}")
    assert verdict.counts_against_host is False


@pytest.mark.parametrize(
    "status", [300, 301, 302, 303, 304, 307, 308, 400, 401, 403, 404, 405, 409, 413, 422, 451, 499]
)
def test_3xx_and_4xx_are_final(status: int) -> None:
    verdict = decided(Answer(status, retry_after="10"))
    assert verdict == Verdict("final", None, f"answered {status}")
    assert verdict.counts_against_host is False


def test_410_is_gone() -> None:
    verdict = decided(Answer(410))
    assert verdict == Verdict("gone", None, "answered 410")
    assert verdict.counts_against_host is False


@pytest.mark.parametrize("status", [408, 425, 429, 500, 503, 599, 999])
def test_these_statuses_are_tried_again_and_count_against_their_host(status: int) -> None:
    verdict = decided(Answer(status))
    assert verdict == Verdict("retry", 5.0, f"answered {status}")
    assert verdict.counts_against_host is True


@pytest.mark.parametrize("kind", ["timeout", "connection", "protocol", "too_large"])
def test_faults_are_tried_again_and_count_against_their_host(kind: FaultKind) -> None:
    verdict = decided(Fault(kind, "seen"))
    assert verdict == Verdict("retry", 5.0, f"{kind}: seen")
    assert verdict.counts_against_host is True


def test_refused_address_is_the_end_at_once() -> None:
    verdict = decided(Fault("refused", "private"))
    assert verdict == Verdict("refused", None, "refused: private")
    assert verdict.counts_against_host is False


@pytest.mark.parametrize("attempt", [1, 2, 3])
def test_waits_follow_the_schedule(attempt: int) -> None:
    assert decided(Answer(500), attempt).wait_seconds == SCHEDULE[attempt - 1]


@pytest.mark.parametrize("result", [Answer(500), Answer(429, "5"), Fault("timeout", "slow")])
def test_schedule_that_is_used_up_is_the_end(result: Answer | Fault) -> None:
    verdict = decided(result, attempt=4)
    assert (verdict.kind, verdict.wait_seconds, verdict.counts_against_host) == ("dead", None, True)
    assert "4 attempts" in verdict.reason
    assert decided(result, schedule=()).kind == "dead"


def test_success_after_the_schedule_still_counts() -> None:
    assert decided(Answer(200), attempt=9).kind == "delivered"


@pytest.mark.parametrize(("chance", "wait"), [(0.0, 240.0), (0.5, 300.0), (1.0, 360.0)])
def test_waits_are_spread_by_a_fifth_either_way(chance: float, wait: float) -> None:
    assert decided(Answer(500), 2, chance).wait_seconds == pytest.approx(wait)


@pytest.mark.parametrize("status", [408, 425, 429, 503])
@pytest.mark.parametrize(
    ("asked", "wait"),
    [
        ("120", 120),
        (" 120 ", 120),
        ("1", 5),
        ("0", 5),
        ("86400", 86400),
        ("86401", 86400),
        ("9" * 50, 86400),
        ("-5", 5),
        ("1.5", 5),
        ("soon", 5),
        ("", 5),
        (None, 5),
        ("٣٠٠", 5),
        (format_datetime(NOW + timedelta(minutes=10), usegmt=True), 600),
        (format_datetime(NOW - timedelta(minutes=10), usegmt=True), 5),
        (format_datetime(NOW + timedelta(days=10), usegmt=True), 86400),
        ("Mon, 23 Nov 2026 12:01:00 -0000", 60),
        ("Mon, 99 Nov 2026 12:01:00 GMT", 5),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 86400),
    ],
)
def test_retry_after_is_honoured_within_bounds(status: int, asked: str | None, wait: float) -> None:
    verdict = decided(Answer(status, asked))
    assert (verdict.kind, verdict.wait_seconds) == ("retry", wait)


def test_retry_after_date_is_measured_by_the_receivers_clock() -> None:
    wrong_clock = NOW + timedelta(days=400)
    answer = Answer(503, format_datetime(wrong_clock + timedelta(minutes=2)), format_datetime(wrong_clock))
    assert decided(answer).wait_seconds == 120


@pytest.mark.parametrize("status", [500, 502, 504])
def test_retry_after_on_other_statuses_is_not_looked_at(status: int) -> None:
    assert decided(Answer(status, "1000")).wait_seconds == 5


@given(
    st.integers(100, 999),
    st.one_of(st.none(), st.text(max_size=40), st.integers().map(str), st.datetimes().map(str)),
    st.one_of(st.none(), st.text(max_size=40)),
    st.integers(1, 6),
    st.floats(0, 1),
)
def test_every_answer_has_a_verdict_that_makes_sense(
    status: int, retry_after: str | None, date: str | None, attempt: int, chance: float
) -> None:
    verdict = decided(Answer(status, retry_after, date), attempt, chance)
    assert (verdict.kind == "retry") == (verdict.wait_seconds is not None)
    if verdict.wait_seconds is not None:
        assert SCHEDULE[attempt - 1] * 0.79 <= verdict.wait_seconds <= LONGEST_RETRY_AFTER
