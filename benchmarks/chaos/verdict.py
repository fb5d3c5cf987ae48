"""Judges a run: what each plan and the faults that struck allow. Pure; knows neither servers nor processes."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from benchmarks.chaos.evidence import Event
from benchmarks.chaos.faults import BROKER, CLIENT, DATABASE, FORGET, FREEZE, KILL, LIMIT, RESULTS, Fault
from benchmarks.chaos.plans import Plan
from benchmarks.chaos.receiver import Call

#: Seconds after the end of a fault in which what it caused may still show.
_AFTERMATH: Final = 20.0

#: Which faults may lead to an end of an execution with these errors. Names of the classes, as they are recorded.
_LOST: Final = frozenset({KILL, FREEZE, FORGET, CLIENT})
_UNREACHABLE: Final = frozenset({BROKER, DATABASE})
_EXCUSES: Final = {
    "WorkerLostError": frozenset({KILL}),
    "SoftTimeLimitExceeded": frozenset({LIMIT}),
    "BackendStoreError": frozenset({RESULTS}),
    "MessageLostError": _LOST | {BROKER},
    "OperationalError": _UNREACHABLE,
    "InterfaceError": _UNREACHABLE,
    "PendingRollbackError": frozenset({DATABASE}),
    "DatabaseUnavailableError": frozenset({DATABASE}),
    "BrokerUnavailableError": frozenset({BROKER}),
    "ConnectionError": frozenset({BROKER, RESULTS}),
    "ConnectionResetError": frozenset({BROKER, RESULTS}),
    "TimeoutError": frozenset({BROKER, RESULTS}),
    "BusyLoadingError": frozenset({BROKER, RESULTS}),
    "RuntimeError": frozenset({BROKER, RESULTS}),
    # What Celery makes of a retry that could not be published.
    "Reject": frozenset({BROKER}),
    "ChordError": _LOST | _UNREACHABLE,
}

#: What the log of a task says that a client or its broker failed, and which faults excuse it.
_ENTRIES: Final = (
    ("the client died while it submitted the work", frozenset({CLIENT, DATABASE})),
    ("could not be sent: ", _UNREACHABLE),
    ("its start was not completed", _UNREACHABLE),
)

_PROCESS: Final = re.compile(r"\(process (\d+)\)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One execution, as its row says."""

    name: str
    state: str
    pid: int | None
    losses: int
    error_type: str | None
    error: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One task, as its rows say.

    Attributes:
        id: Its id.
        status: PENDING, SUCCESS or ERROR.
        started: Seconds since the epoch.
        finished: The same; None while it has not ended.
        log: Its whole log.
        data: What the plugin stored.
        members: Its executions.
    """

    id: int
    status: str
    started: float
    finished: float | None
    log: str
    data: object
    members: tuple[Member, ...] = ()


@dataclass(slots=True)
class Verdict:
    """What came of a run. Everything in `wrong`, `stuck`, `missing`, `untold` and `disordered` is a fault of ours.

    Attributes:
        submitted: Plans whose start was begun, and those of them that left a row.
        ended: Tasks that ended, by status.
        excused: Tasks that ended as ERROR though planned otherwise, since a fault struck them.
        wrong: What must not be: plan and reason.
        stuck: Tasks that did not end.
        lines: Log lines that had to be there.
        missing: Those of them that were not.
        owed: Notifications that had to be told.
        told: Those that were told, however often.
        untold: Those that were not.
        disordered: Calls out of order.
        slowest: Longest time in seconds from a fault to the end of a task that it struck.
    """

    submitted: int = 0
    rows: int = 0
    ended: Counter[str] = field(default_factory=Counter)
    excused: int = 0
    wrong: list[str] = field(default_factory=list)
    stuck: list[str] = field(default_factory=list)
    lines: int = 0
    missing: list[str] = field(default_factory=list)
    owed: int = 0
    told: int = 0
    untold: list[str] = field(default_factory=list)
    disordered: list[str] = field(default_factory=list)
    slowest: float = 0.0

    @property
    def clean(self) -> bool:
        """Whether nothing is wrong, stuck or missing."""
        return not (self.wrong or self.stuck or self.missing or self.untold or self.disordered)


class Judge:
    """Judges one plan after the other.

    Args:
        faults: All that struck.
        flush_seconds: After how long a reported line must have been written.
    """

    def __init__(self, faults: Sequence[Fault], flush_seconds: float) -> None:
        self._faults = faults
        self._flush = flush_seconds
        self._killed: dict[int, list[Fault]] = defaultdict(list)
        for fault in faults:
            if KILL in fault.groups:
                for pid in fault.pids:
                    self._killed[pid].append(fault)
        self.verdict = Verdict()

    def judge(self, plan: Plan, events: Sequence[Event], rows: Sequence[Row]) -> None:
        """Judge one plan.

        Args:
            plan: The plan.
            events: What really happened to it, in any order.
            rows: The tasks that were made for it.
        """
        verdict = self.verdict
        kinds = {event.kind for event in events}
        verdict.submitted += "starting" in kinds
        if not rows:
            if "started" in kinds:
                self._wrong(plan, "start returned, but there is no task")
            elif kinds & {"begin", "end"}:
                self._wrong(plan, "it ran, but there is no task")
            return
        if len(rows) > 1:
            self._wrong(plan, f"{len(rows)} tasks were made")
        verdict.rows += 1
        row = rows[0]
        self._judge_end(plan, events, row, refused="refused" in kinds)
        self._judge_lines(plan, events, row)

    def _judge_end(self, plan: Plan, events: Sequence[Event], row: Row, *, refused: bool) -> None:
        if row.finished is None or row.status == "PENDING":
            members = ", ".join(f"{member.name} {member.state}" for member in row.members)
            self.verdict.stuck.append(f"plan {plan.number} ({plan.kind}), task {row.id}: {row.status}; {members}")
            return
        self.verdict.ended[row.status] += 1
        ended = {event.node for event in events if event.kind == "end"}
        begun = {event.node for event in events if event.kind == "begin"}
        for node in plan.forbidden:
            if node in begun:
                self._wrong(plan, f"member {node} began although the one before it failed", row)
        if row.status == "SUCCESS":
            lacking = [node for node in plan.nodes if node not in ended]
            still_open = [member.name for member in row.members if member.state in ("QUEUED", "RUNNING")]
            if not plan.succeeds:
                self._wrong(plan, "it ended as SUCCESS, but a member fails", row)
            elif lacking:
                self._wrong(plan, f"it ended as SUCCESS, but {', '.join(lacking)} did not run to the end", row)
            elif still_open:
                self._wrong(plan, f"it ended as SUCCESS, but {', '.join(still_open)} is open", row)
            elif plan.kind == "stores" and row.data != {"stored": plan.number}:
                self._wrong(plan, f"it ended as SUCCESS, but its data are {row.data!r}", row)
            return
        if not plan.succeeds and any(member.error_type == "PlannedError" for member in row.members):
            return
        reason = self._unexcused(plan, row)
        if reason is not None:
            self._wrong(plan, f"it ended as ERROR: {reason}" + (" (its start was refused)" if refused else ""), row)
            return
        self.verdict.excused += 1
        self._measure(row)

    def _unexcused(self, plan: Plan, row: Row) -> str | None:
        """Return why an ERROR is not excused by a fault; None if it is."""
        for entry, groups in _ENTRIES:
            if entry in row.log:
                return None if self._struck(groups, row) else f"{entry}, though nothing struck"
        failed = [member for member in row.members if member.error_type not in (None, "PlannedError")]
        failed = [member for member in failed if member.state in ("FAILURE", "LOST", "REJECTED", "REVOKED")]
        if not failed:
            return f"nothing says why; log: {row.log[-200:]!r}"
        reason: str | None = None
        for member in failed:
            reason = self._unexcused_member(plan, row, member)
            if reason is None:
                return None
        return reason

    def _unexcused_member(self, plan: Plan, row: Row, member: Member) -> str | None:
        told = f"{member.name} {member.state} {member.error_type}: {(member.error or '')[:160]}"
        groups = _EXCUSES.get(str(member.error_type))
        if groups is None:
            return f"{told}, which no fault explains"
        if not self._struck(groups, row):
            return f"{told}, though nothing struck that explains it"
        if member.error_type == "WorkerLostError":
            named = _PROCESS.search(member.error or "")
            pid = int(named.group(1)) if named else member.pid
            if pid is not None and pid not in self._killed:
                return f"{told}, though process {pid} was not killed"
            if plan.survives and "is not tried again" not in (member.error or ""):
                return f"{told}, though its message is delivered again"
        return None

    def _struck(self, groups: frozenset[str], row: Row) -> bool:
        end = row.finished if row.finished is not None else float("inf")
        return any(
            fault.groups & groups and fault.at <= end and fault.until + _AFTERMATH >= row.started
            for fault in self._faults
        )

    def _measure(self, row: Row) -> None:
        """Note how long it took from the last fault that explains the end to that end."""
        end = row.finished or 0.0
        pids = {member.pid for member in row.members if member.error_type == "WorkerLostError"}
        kills = [fault.at for pid in pids if pid is not None for fault in self._killed.get(pid, ()) if fault.at <= end]
        if kills:
            self.verdict.slowest = max(self.verdict.slowest, end - max(kills))

    def _judge_lines(self, plan: Plan, events: Iterable[Event], row: Row) -> None:
        written = set(row.log.splitlines())
        for event in events:
            if event.kind != "line" or not self._is_owed(event):
                continue
            self.verdict.lines += 1
            if event.text not in written:
                self.verdict.missing.append(f"plan {plan.number}, task {row.id} ({row.status}): {event.text}")

    def _is_owed(self, event: Event) -> bool:
        """Tell whether a line had more than one flush interval to be written before its process was killed.

        While the database is away, or the process is stopped, nothing can be written.
        """
        # A fault is noted just before it strikes, so that a line may come after it.
        killed = min((fault.at for fault in self._killed.get(event.pid, ())), default=None)
        if killed is None:
            return True
        # A flush begins each interval, and takes its time where two processors serve everybody.
        hindered = any(
            fault.groups & {DATABASE, FREEZE} and fault.at <= killed and fault.until + 1 >= event.at
            for fault in self._faults
        )
        return not hindered and killed - event.at > 2 * self._flush

    def judge_calls(self, owed: dict[int, str], calls: Sequence[Call]) -> None:
        """Judge what subscribers were told.

        Args:
            owed: Status by the number of each plan whose subscriber has to be told of its end.
            calls: What they were told, in that order.
        """
        verdict = self.verdict
        last: dict[tuple[int, str], int] = {}
        told: dict[int, str] = {}
        for call in calls:
            key = (call.plan, call.event)
            if call.sequence < last.get(key, -1):
                verdict.disordered.append(f"plan {call.plan}: {call.event} {call.sequence} after {last[key]}")
            last[key] = max(call.sequence, last.get(key, -1))
            if call.event == "status":
                told[call.plan] = call.status
        verdict.owed = len(owed)
        for plan, status in owed.items():
            if plan not in told:
                verdict.untold.append(f"plan {plan}: {status}")
            elif told[plan] != status:
                verdict.wrong.append(f"plan {plan}: its subscriber was told {told[plan]}, but it ended as {status}")
        verdict.told = sum(plan in told for plan in owed)

    def _wrong(self, plan: Plan, reason: str, row: Row | None = None) -> None:
        task = f", task {row.id}" if row is not None else ""
        self.verdict.wrong.append(f"plan {plan.number} ({plan.kind}){task}: {reason}")
