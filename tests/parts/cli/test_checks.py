"""Each check of the set-up, on values that are well and on values that are not."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from qhana_taskstate.cli.doctor import checks
from qhana_taskstate.cli.doctor.checks import Finding, TaskOptions

NOW = datetime(2026, 5, 18, 9, 30, tzinfo=UTC)


def task(name: str = "plugin", **facts: object) -> TaskOptions:
    values: dict[str, object] = {"acks_late": False, "reject_on_worker_lost": False, "time_limit": None, **facts}
    return TaskOptions(name=name, **values)  # type: ignore[arg-type]  # gathered above


def told(finding: Finding) -> str:
    """Return what a finding says that is not well; it always says what to change."""
    assert not finding.ok
    assert finding.advice
    return finding.seen


class TestSchema:
    def test_newest_version_is_well(self) -> None:
        assert checks.check_schema("0002", ("0001", "0002")).ok

    @pytest.mark.parametrize(
        ("revision", "words"), [(None, "missing"), ("0001", "newest is 0002"), ("0003", "newer than this package")]
    )
    def test_other_versions_are_told(self, revision: str | None, words: str) -> None:
        assert words in told(checks.check_schema(revision, ("0001", "0002")))


class TestClocks:
    def check(self, *, worker: float, database: float, took: float = 0.2) -> Finding:
        (finding,) = checks.check_clocks(
            100.0, 100.0 + took, 101.0 + database, {"w@h": 100.0 + worker}, database_asked=(101.0, 101.0)
        )
        return finding

    def test_clocks_that_go_together_are_well_whatever_ours_says(self) -> None:
        assert self.check(worker=0.1, database=0.0).ok
        assert self.check(worker=3600.1, database=3600.0).ok

    def test_worker_that_is_ahead_or_behind_is_told(self) -> None:
        assert "ahead" in told(self.check(worker=60.0, database=0.0))
        assert "behind" in told(self.check(worker=0.0, database=60.0))

    def test_slow_answer_is_no_difference(self) -> None:
        assert self.check(worker=4.9, database=0.0, took=5.0).ok
        assert self.check(worker=0.0, database=0.0, took=5.0).ok


class TestTimeLimits:
    def test_task_without_late_acknowledgement_may_take_as_long_as_it_likes(self) -> None:
        assert checks.check_time_limits([task()], 3600).ok

    def test_broker_without_a_visibility_timeout_is_well(self) -> None:
        assert checks.check_time_limits([task(acks_late=True)], None).ok

    def test_limit_below_the_visibility_timeout_is_well(self) -> None:
        assert checks.check_time_limits([task(acks_late=True, time_limit=60)], 3600).ok

    def test_limit_at_or_above_it_is_told(self) -> None:
        for limit in (3600, 7200):
            assert "plugin" in told(checks.check_time_limits([task(acks_late=True, time_limit=limit)], 3600))

    def test_late_acknowledgement_without_a_limit_is_told(self) -> None:
        assert "without a time_limit" in told(checks.check_time_limits([task(acks_late=True)], 3600))


def test_late_acknowledgement_that_is_lost_with_the_worker_is_told() -> None:
    assert checks.check_late_acknowledgement([task(), task(acks_late=True, reject_on_worker_lost=True)]).ok
    finding = checks.check_late_acknowledgement([task("good"), task("bad", acks_late=True)])
    assert "bad" in told(finding)
    assert "task_reject_on_worker_lost" in finding.advice


class TestQueues:
    def test_no_worker_is_told(self) -> None:
        assert "no worker" in told(checks.check_queues({}, "celery"))

    def test_queue_that_nobody_consumes_is_told(self) -> None:
        assert "'hooks'" in told(checks.check_queues({"w@h": {"celery"}}, "hooks"))

    def test_queue_that_somebody_consumes_is_well(self) -> None:
        assert checks.check_queues({"v@h": {"celery"}, "w@h": {"hooks"}}, "hooks").ok


def test_silence_of_what_runs_is_told() -> None:
    assert checks.check_heartbeats([], NOW, 30).ok
    assert checks.check_heartbeats([NOW - timedelta(seconds=29)], NOW, 30).ok
    assert "1 of 2" in told(checks.check_heartbeats([NOW, NOW - timedelta(seconds=31)], NOW, 30))


def test_upkeep_that_nobody_does_is_told() -> None:
    assert checks.check_upkeep(NOW + timedelta(seconds=10), NOW, 5, idle=False).ok
    assert checks.check_upkeep(NOW - timedelta(seconds=9), NOW, 5, idle=False).ok
    assert checks.check_upkeep(None, NOW, 5, idle=True).ok
    assert "ever" in told(checks.check_upkeep(None, NOW, 5, idle=False))
    assert "2026-05-18" in told(checks.check_upkeep(NOW - timedelta(seconds=11), NOW, 5, idle=False))


def test_late_delivery_is_told() -> None:
    assert checks.check_deliveries(None, NOW).ok
    assert checks.check_deliveries(NOW - timedelta(seconds=299), NOW).ok
    assert "since" in told(checks.check_deliveries(NOW - timedelta(seconds=301), NOW))


def test_forgotten_tasks_are_named_but_not_all_of_many() -> None:
    assert checks.check_silence([]).ok
    assert told(checks.check_silence([7, 3])).endswith("2 open tasks give no sign of life: 3, 7")
    assert told(checks.check_silence(range(1000))).endswith("9 ...")


class TestProbe:
    def test_canvas_that_came_back_is_well(self) -> None:
        assert checks.check_probe("SUCCESS", 2, "", 0.1).ok

    def test_canvas_that_did_not_come_back_is_told(self) -> None:
        assert "within 5 s" in told(checks.check_probe(None, 0, "", 5))

    def test_canvas_that_lost_a_member_or_failed_is_told(self) -> None:
        assert "nothing in its log" in told(checks.check_probe("SUCCESS", 1, "", 1))
        assert "no header" in told(checks.check_probe("ERROR", 0, "no\nheader", 1))
