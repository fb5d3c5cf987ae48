"""What is shown of tasks, executions, steps and outputs."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from ...states import TaskStatus
from .activity import Activity


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgressView:
    """How far a task or an execution has come; all numbers share the unit."""

    value: float
    start: float
    target: float
    unit: str

    @property
    def share(self) -> float:
        """How much of the way is done, from 0.0 to 1.0; a way of no length is done."""
        length = self.target - self.start
        return min(1.0, max(0.0, (self.value - self.start) / length)) if length else 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class StepView:
    """A step of a task.

    Attributes:
        number: Its place, from 0.
        step_id: Its id, as the plugin gave it.
        href: URL of its REST entry point.
        ui_href: URL of its micro frontend.
        cleared: False while it waits for input.
        unanswered: It was cleared by the end of its task, as far as that can be told.
    """

    number: int
    step_id: str
    href: str
    ui_href: str
    cleared: bool
    unanswered: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputView:
    """A file that a task gave out.

    Attributes:
        id: Id of the `TaskFile`.
        file_name: Its name for people.
        file_type: QHAna's type of the data.
        mimetype: Type of the format.
        storage_provider: Name of the store that holds it.
        href: Where to get it; None where only the store of the application knows.
        path: Where a local file is.
    """

    id: int
    file_name: str
    file_type: str
    mimetype: str
    storage_provider: str
    href: str | None
    path: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkView:
    """A link of a task to something that belongs to it."""

    type: str
    href: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskView:
    """A task in one line.

    Attributes:
        id: Id of the `ProcessingTask`.
        task_name: Its name.
        status: PENDING, SUCCESS, the word for a failed task of `taskstate_error_status`, UNKNOWN for an end
            without a word, or another word of an old row.
        started_at: Aware UTC; None in an old row that does not say.
        finished_at: Aware UTC; None while it is PENDING.
        progress: What it reported; None if nothing.
        tracked: Whether it was given to us; the rows of others are only shown.
        open_ended: It stays open until it is told to finish.
        waiting_step: The step at which it waits for input.
        activity: What it is doing; of a failed one, why.
    """

    id: int
    task_name: str
    status: str
    started_at: datetime | None
    finished_at: datetime | None
    progress: ProgressView | None
    tracked: bool
    open_ended: bool
    waiting_step: StepView | None
    activity: Activity

    @property
    def finished(self) -> bool:
        """Whether it has ended."""
        return self.finished_at is not None

    @property
    def succeeded(self) -> bool:
        """Whether it has ended as SUCCESS."""
        return self.finished and self.status == TaskStatus.SUCCESS

    def seconds(self, moment: datetime) -> float | None:
        """Return how long it took, or has taken until `moment` (aware) if it has not ended, in seconds."""
        return seconds(self.started_at, self.finished_at or moment)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionView:
    """One Celery message of a task. Times are aware UTC, None where they are not known.

    Attributes:
        celery_id: Celery's id of the message.
        retries: Celery's count of retries, 0 for the first attempt.
        nesting: 0 for what was submitted, 1 more for each replacement.
        name: Name of the Celery task.
        state: An `ExecutionState`.
        parent_id: Celery id of the execution that published it.
        queue: Where it was routed to.
        published_at: When it was handed to the broker.
        eta: Earliest moment it may begin.
        started_at: When it was begun first.
        closed_at: When it was over.
        heartbeat_at: Last sign of life.
        worker: Host name of the Celery worker.
        host: Machine and process namespace in which `pid` means something.
        pid: Process there.
        pid_started: When that process started, seconds since the epoch.
        acks_late: Whether the broker keeps its message until it ended.
        max_retries: Celery's limit; None for no limit, or while it was not begun.
        deliveries: How often it was begun.
        losses: How often it lost its worker while the broker still had its message.
        deadline_at: When it counts as lost if nobody has begun it by then.
        error_type: Class of the error that ended it.
        error: Its message.
        traceback: Its traceback.
        progress: What it reported.
        trace_id: Id of the OpenTelemetry trace that it belongs to, 32 hexadecimal digits; None without one.
        waiting_seconds: Time between the moment it could have begun and the moment it did, or has done so far;
            None if the former is not known.
        run_seconds: Time between begin and end, or so far; None if it was not begun.
    """

    celery_id: str
    retries: int
    nesting: int
    name: str
    state: str
    parent_id: str | None
    queue: str | None
    published_at: datetime | None
    eta: datetime | None
    started_at: datetime | None
    closed_at: datetime | None
    heartbeat_at: datetime | None
    worker: str | None
    host: str | None
    pid: int | None
    pid_started: float | None
    acks_late: bool | None
    max_retries: int | None
    deliveries: int
    losses: int
    deadline_at: datetime | None
    error_type: str | None
    error: str | None
    traceback: str | None
    progress: ProgressView | None
    trace_id: str | None
    waiting_seconds: float | None
    run_seconds: float | None

    @property
    def attempt(self) -> int:
        """Which attempt it is, from 1."""
        return self.retries + 1

    @property
    def max_attempts(self) -> int | None:
        """How many attempts there are at most; None for no limit, or where it is not known."""
        return None if self.max_retries is None else self.max_retries + 1

    @property
    def failure(self) -> str | None:
        """Type and message of its error; None if it has none."""
        if self.error_type and self.error:
            return f"{self.error_type}: {self.error}"
        return self.error_type or self.error or None


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskDetail:
    """All that is known of one task, but for its `data` and `parameters`, which may hold secrets.

    Attributes:
        task: The task in one line.
        decided_status: The end that was decided; None while there is none. It is there before `task.status` shows
            it as long as a plugin holds the row of the task.
        steps: By number.
        outputs: Its result files, by id; before its end too.
        links: By id.
        subscriptions: How many webhooks are subscribed.
        holds: How many submissions for it are under way.
        log: The whole log.
        executions: As `executions` returns them.
    """

    task: TaskView
    decided_status: str | None
    steps: tuple[StepView, ...]
    outputs: tuple[OutputView, ...]
    links: tuple[LinkView, ...]
    subscriptions: int
    holds: int
    log: str
    executions: tuple[ExecutionView, ...]


def seconds(begin: datetime | None, end: datetime) -> float | None:
    # The two may come from the clocks of two machines.
    return None if begin is None else max(0.0, (end - begin).total_seconds())


def maybe_progress(
    value: float | None, start: float | None, target: float | None, unit: str | None
) -> ProgressView | None:
    return None if value is None else progress_view(value, start, target, unit)


def progress_view(value: float, start: float | None, target: float | None, unit: str | None) -> ProgressView:
    return ProgressView(
        value=value,
        start=0.0 if start is None else start,
        target=100.0 if target is None else target,
        unit="%" if unit is None else unit,
    )
