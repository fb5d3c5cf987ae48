"""Answers questions about tasks; changes nothing. What it returns are values, not rows that live in a session."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final
from urllib.parse import quote

from sqlalchemy import ColumnElement, Connection, Row, Select, String, func, or_, select, type_coerce
from sqlalchemy.orm import Session, object_session

from . import openwork, tasklog
from .activity import Activity, ActivityWord, Facts, activity_of
from .clock import now
from .models import TEMPORARY_FILE_TYPE, ProcessingTask
from .rows import is_open_step, is_uncleared
from .runner_tables import UNKNOWN_MOMENT, file_table, link_table, step_table, subscription_table, task_table
from .sessions import current_session
from .settings import Settings
from .states import ERROR_WORDS, UNKNOWN, ExecutionState, TaskStatus, with_error_word
from .tables import UtcTime, execution_table, hold_table, job_table

#: Providers of today's plugin runner whose files have an address that can be told without asking the store.
_LOCAL_PROVIDER: Final = "local_filesystem"
_URL_PROVIDER: Final = "url_file_store"

#: Tells where the file of a `TaskFile` with an id is found; None if it does not know.
HrefOf = Callable[[int], str | None]

#: Ids in one query; SQLite before 3.32 takes 999 bound values.
_IDS_AT_ONCE: Final = 500


#: How many bytes of the newest log are in the JSON of the task resource.
DESCRIBED_LOG_BYTES: Final = 65_536


@dataclass(frozen=True, slots=True)
class Glance:
    """What `wait` looks at.

    Attributes:
        finished: The task has ended.
        waiting: It waits at a step for input.
    """

    finished: bool
    waiting: bool


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
        return _seconds(self.started_at, self.finished_at or moment)


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


def glance(connection: Connection, task_id: int) -> Glance | None:
    """Look at a task; None if there is no such row."""
    row = connection.execute(select(task_table.c.finished_at).where(task_table.c.id == task_id)).one_or_none()
    if row is None:
        return None
    step = connection.execute(select(step_table.c.number).where(is_open_step(task_id)).limit(1)).first()
    return Glance(finished=row.finished_at is not None, waiting=step is not None)


def describe(
    task: ProcessingTask,
    settings: Settings,
    *,
    base: str | None = None,
    href_of: HrefOf | None = None,
    log_bytes: int | None = DESCRIBED_LOG_BYTES,
) -> dict[str, Any]:
    """Return the JSON of QHAna's task resource.

    Shape: `status`, `log`, `outputs` and `links` always, `progress` and `steps` where there are some, and beside
    what QHAna's own resource has `taskId`, `taskName`, `startedAt` and `finishedAt` (ISO 8601, UTC), and `activity`:
    what the task is doing, as `word` (an `ActivityWord`) and `text` (for people; of a failed task, why). The items of
    `steps` and the object `progress` hold exactly the keys of that resource, since its reader, QHAna's backend,
    takes no other there. Never in it: tracebacks, parameters, data.

    Outputs are listed once the task has ended, with `href` for files of `local_filesystem` (below the setting
    `taskstate_public_url`; without it a path from the root of the server) and of `url_file_store`. Only the
    application's own store knows where the files of another provider are: those have no `href`, which the
    application adds. The first link is where to subscribe, if the setting tells the public URL.

    Args:
        task: The task. Its steps, files and links are read anew in its session; commits nothing.
        settings: Say the word for a failed task, and the public URL.
        base: Where the task resources of this server are found; by default what the public URL says.
        href_of: Tells where a file is found; None where it does not know. By default what is said above.
        log_bytes: How many bytes of UTF-8 of the newest log are in it; None for all of it.

    Returns:
        A dict that `json.dumps` takes.
    """
    session = object_session(task) or current_session()
    address = _Addresses(settings, base, href_of)
    described: dict[str, Any] = {
        "taskId": task.id,
        "taskName": task.task_name,
        "status": with_error_word(task.status, settings.wire_error_status),
        "activity": _activity(session, task, settings).wire,
        "log": (task.task_log or "") if log_bytes is None else tasklog.read_tail(session, task.id, log_bytes),
        "outputs": [_wire_output(output) for output in _outputs(session, task.id, address)] if task.is_finished else [],
        "links": address.subscribe_links(task.id)
        + [{"type": link.type, "href": link.href} for link in _links(session, task.id)],
    }
    if task.started_at != UNKNOWN_MOMENT:
        described["startedAt"] = task.started_at.isoformat()
    if task.finished_at is not None:
        described["finishedAt"] = task.finished_at.isoformat()
    if task.progress_value is not None:
        progress = _progress(task.progress_value, task.progress_start, task.progress_target, task.progress_unit)
        described["progress"] = {
            "value": _plain_number(progress.value),
            "start": _plain_number(progress.start),
            "target": _plain_number(progress.target),
            "unit": progress.unit,
        }
    steps = _steps(session, task.id)
    if steps:
        described["steps"] = [
            {"href": step.href, "uiHref": step.ui_href, "stepId": step.step_id, "cleared": step.cleared}
            for step in steps
        ]
    return described


def list_tasks(
    connection: Connection,
    settings: Settings,
    *,
    status: str | None = None,
    name: str | None = None,
    before: int | None = None,
    limit: int = 50,
) -> list[TaskView]:
    """Return a page of tasks, newest first.

    Args:
        connection: What to read with.
        settings: Say the word for a failed task.
        status: Only tasks with this status: PENDING, SUCCESS, ERROR (FAILURE means the same), UNKNOWN, or another
            word of old rows.
        name: Only tasks whose name contains this text, in any case.
        before: Only tasks with a smaller id; pass the last id of one page to get the next.
        limit: How many at most.
    """
    query = _task_query().order_by(task_table.c.id.desc()).limit(limit)
    if status is not None:
        query = query.where(_has_status(status))
    if name:
        query = query.where(func.lower(task_table.c.task_name).contains(name.lower(), autoescape=True))
    if before is not None:
        query = query.where(task_table.c.id < before)
    return _task_views(connection, settings, query)


def open_task_ids(connection: Connection) -> list[int]:
    """Return the ids of the tasks that were given to us and have not ended, oldest first."""
    query = (
        select(task_table.c.id)
        .join(job_table, job_table.c.task_id == task_table.c.id)
        .where(task_table.c.finished_at.is_(None))
        .order_by(task_table.c.id)
    )
    return list(connection.execute(query).scalars())


def silent_task_ids(connection: Connection, before: datetime) -> list[int]:
    """Return open tasks that nothing seems to bring to an end.

    They are neither open-ended nor at a step, no submission is under way, nothing of them runs, and what of them is
    queued was to begin before a moment.

    Args:
        connection: Where to read.
        before: That moment, aware UTC.
    """
    its = execution_table.c.task_id == job_table.c.task_id
    lively = or_(
        execution_table.c.state == ExecutionState.RUNNING.value,
        func.coalesce(execution_table.c.eta, execution_table.c.published_at, before) > before,
    )
    rows = connection.execute(
        select(job_table.c.task_id)
        .where(
            job_table.c.end_status.is_(None),
            job_table.c.open_ended.is_(False),
            job_table.c.parked.is_(False),
            job_table.c.had_work.is_(True),
            func.coalesce(job_table.c.created_at, before) <= before,
            ~select(hold_table.c.id).where(hold_table.c.task_id == job_table.c.task_id).exists(),
            ~select(execution_table.c.task_id).where(its, execution_table.c.closed_at.is_(None), lively).exists(),
            ~select(execution_table.c.task_id).where(its, execution_table.c.closed_at > before).exists(),
        )
        .order_by(job_table.c.task_id)
        .limit(_IDS_AT_ONCE)
    )
    return [row.task_id for row in rows]


def get_tasks(connection: Connection, settings: Settings, task_ids: Iterable[int]) -> list[TaskView]:
    """Return the tasks with these ids, by id; those that do not exist are left out."""
    wanted = sorted(set(task_ids))
    found: list[TaskView] = []
    for position in range(0, len(wanted), _IDS_AT_ONCE):
        some = wanted[position : position + _IDS_AT_ONCE]
        found += _task_views(
            connection, settings, _task_query().where(task_table.c.id.in_(some)).order_by(task_table.c.id)
        )
    return found


def executions(connection: Connection, task_id: int) -> list[ExecutionView]:
    """Return all executions of a task in the order in which they were published, attempts of one message in theirs.

    Waiting and run time of an open execution reach up to now.
    """
    moment = now()
    rows = connection.execute(select(execution_table).where(execution_table.c.task_id == task_id)).mappings()
    views = [_execution(row, moment) for row in rows]
    latest = datetime.max.replace(tzinfo=moment.tzinfo)
    return sorted(
        views,
        key=lambda view: (
            view.published_at or view.started_at or view.closed_at or latest,
            view.celery_id,
            view.nesting,
            view.retries,
        ),
    )


def show(connection: Connection, settings: Settings, task_id: int) -> TaskDetail | None:
    """Return all that is known of a task; None if there is no such row."""
    tasks = get_tasks(connection, settings, [task_id])
    if not tasks:
        return None
    job = connection.execute(
        select(job_table.c.end_status, job_table.c.parked).where(job_table.c.task_id == task_id)
    ).one_or_none()
    its_executions = tuple(executions(connection, task_id))
    steps = _steps(connection, task_id)
    if steps and tasks[0].finished and job is not None and (job.parked or not its_executions):
        # Every end clears the open step; an answer starts work, after which the task no longer rests.
        steps[-1] = replace(steps[-1], unanswered=True)
    return TaskDetail(
        task=tasks[0],
        decided_status=with_error_word(job.end_status, settings.error_status) if job is not None else None,
        steps=tuple(steps),
        outputs=tuple(_outputs(connection, task_id, _Addresses(settings))),
        links=tuple(_links(connection, task_id)),
        subscriptions=_count(connection, subscription_table.c.task_id == task_id),
        holds=_count(connection, hold_table.c.task_id == task_id),
        log=tasklog.read(connection, task_id),
        executions=its_executions,
    )


@dataclass(frozen=True, slots=True)
class _Addresses:
    """Tells where things are, as far as the caller or else the settings know."""

    settings: Settings
    given_base: str | None = None
    href_of: HrefOf | None = None

    @property
    def base(self) -> str | None:
        url = self.settings.public_url if self.given_base is None else self.given_base
        return None if url is None else url.rstrip("/")

    def subscribe_links(self, task_id: int) -> list[dict[str, Any]]:
        return [] if self.base is None else [{"type": "subscribe", "href": f"{self.base}/tasks/{task_id}/"}]

    def of_file(self, file_id: int, provider: str, tag: str, storage_data: str) -> str | None:
        if self.href_of is not None:
            return self.href_of(file_id)
        if provider == _LOCAL_PROVIDER:
            return f"{self.base or ''}/files/{file_id}/?file-id={quote(tag, safe='')}"
        return storage_data if provider == _URL_PROVIDER else None


def _has_status(status: str) -> ColumnElement[bool]:
    if status == TaskStatus.PENDING:
        return task_table.c.finished_at.is_(None)
    ended = task_table.c.finished_at.is_not(None)
    if status == UNKNOWN:
        return ended & task_table.c.task_status.is_(None)
    words = ERROR_WORDS if status in ERROR_WORDS else {status}
    # As plain text: the column's own type writes both words for a failure as the one that is set, but old rows may
    # hold either.
    return ended & type_coerce(task_table.c.task_status, String).in_(sorted(words))


def _task_query() -> Select[Any]:
    return select(
        task_table.c.id,
        task_table.c.task_name,
        # NULL stays None here.
        type_coerce(task_table.c.started_at, UtcTime).label("started_at"),
        task_table.c.finished_at,
        task_table.c.task_status,
        task_table.c.progress_value,
        task_table.c.progress_start,
        task_table.c.progress_target,
        task_table.c.progress_unit,
        job_table.c.token.is_not(None).label("tracked"),
        job_table.c.open_ended,
        job_table.c.parked,
        job_table.c.had_work,
    ).select_from(task_table.outerjoin(job_table, job_table.c.task_id == task_table.c.id))


def _task_views(connection: Connection, settings: Settings, query: Select[Any]) -> list[TaskView]:
    rows = connection.execute(query).all()
    waiting = _waiting_steps(connection, [row.id for row in rows if row.finished_at is None])
    activities = _activities(connection, settings, rows, waiting)
    return [
        TaskView(
            id=row.id,
            task_name=row.task_name or "",
            status=_status(row.finished_at, row.task_status, settings),
            started_at=row.started_at,
            finished_at=row.finished_at,
            progress=_maybe_progress(row.progress_value, row.progress_start, row.progress_target, row.progress_unit),
            tracked=bool(row.tracked),
            open_ended=bool(row.open_ended),
            waiting_step=waiting.get(row.id),
            activity=activities[row.id],
        )
        for row in rows
    ]


def _activity(session: Session, task: ProcessingTask, settings: Settings) -> Activity:
    rows = session.execute(_task_query().where(task_table.c.id == task.id)).all()
    waiting = _waiting_steps(session, [row.id for row in rows if row.finished_at is None])
    activities = _activities(session, settings, rows, waiting)
    # A row that was deleted meanwhile does nothing.
    return activities.get(task.id) or Activity(ActivityWord.UNTRACKED, "there is no such task any more")


def _activities(
    source: Connection | Session, settings: Settings, rows: Sequence[Row[Any]], waiting: Mapping[int, StepView]
) -> dict[int, Activity]:
    work = openwork.read(source, [row.id for row in rows if row.finished_at is None])
    failed = [row.id for row in rows if row.finished_at is not None and row.task_status in ERROR_WORDS]
    causes = openwork.read_causes(source, failed)
    nothing, moment = openwork.OpenWork(), now()
    found = {}
    for row in rows:
        its, step = work.get(row.id, nothing), waiting.get(row.id)
        facts = Facts(
            status=_status(row.finished_at, row.task_status, settings),
            finished=row.finished_at is not None,
            tracked=bool(row.tracked),
            open_ended=bool(row.open_ended),
            parked=bool(row.parked),
            had_work=bool(row.had_work),
            submitting=its.submitting,
            step_id=None if step is None else step.step_id,
            messages=its.messages,
            cause=causes.get(row.id),
        )
        found[row.id] = activity_of(facts, moment, settings.heartbeat_seconds)
    return found


def _status(finished_at: datetime | None, word: str | None, settings: Settings) -> str:
    if finished_at is None:
        return TaskStatus.PENDING.value
    return with_error_word(word, settings.error_status) or UNKNOWN


def _waiting_steps(source: Connection | Session, task_ids: Sequence[int]) -> dict[int, StepView]:
    found: dict[int, StepView] = {}
    for position in range(0, len(task_ids), _IDS_AT_ONCE):
        some = task_ids[position : position + _IDS_AT_ONCE]
        query = select(step_table).where(step_table.c.id.in_(some), is_uncleared()).order_by(step_table.c.number)
        found.update({row["id"]: _step_view(row) for row in source.execute(query).mappings()})
    return found


def _steps(source: Connection | Session, task_id: int) -> list[StepView]:
    rows = source.execute(select(step_table).where(step_table.c.id == task_id).order_by(step_table.c.number)).mappings()
    return [_step_view(row) for row in rows]


def _step_view(row: Mapping[Any, Any]) -> StepView:
    return StepView(
        number=row["number"],
        step_id=row["step_id"] or "",
        href=row["href"] or "",
        ui_href=row["ui_href"] or "",
        cleared=bool(row["cleared"]),
    )


def _outputs(source: Connection | Session, task_id: int, addresses: _Addresses) -> list[OutputView]:
    query = (
        select(file_table)
        .where(
            file_table.c.task_id == task_id,
            file_table.c.file_type.is_not(None),
            file_table.c.file_type != TEMPORARY_FILE_TYPE,
            file_table.c.mimetype.is_not(None),
        )
        .order_by(file_table.c.id)
    )
    return [
        OutputView(
            id=row["id"],
            file_name=row["file_name"],
            file_type=row["file_type"],
            mimetype=row["mimetype"],
            storage_provider=row["storage_provider"],
            href=addresses.of_file(row["id"], row["storage_provider"], row["security_tag"], row["file_storage_data"]),
            path=row["file_storage_data"] if row["storage_provider"] == _LOCAL_PROVIDER else None,
        )
        for row in source.execute(query).mappings()
    ]


def _wire_output(output: OutputView) -> dict[str, Any]:
    described = {"dataType": output.file_type, "contentType": output.mimetype}
    if output.href is not None:
        described["href"] = output.href
    if output.file_name:
        described["name"] = output.file_name
    return described


def _links(source: Connection | Session, task_id: int) -> list[LinkView]:
    query = (
        select(link_table.c.type, link_table.c.href).where(link_table.c.task_id == task_id).order_by(link_table.c.id)
    )
    return [LinkView(type=row.type, href=row.href) for row in source.execute(query)]


def _count(connection: Connection, condition: ColumnElement[bool]) -> int:
    return connection.execute(select(func.count()).where(condition)).scalar_one()


def _execution(row: Mapping[Any, Any], moment: datetime) -> ExecutionView:
    could_begin = max(filter(None, (row["published_at"], row["eta"])), default=None)
    over = row["closed_at"] or moment
    return ExecutionView(
        celery_id=row["celery_id"],
        retries=row["retries"],
        nesting=row["nesting"],
        name=row["name"],
        state=row["state"],
        parent_id=row["parent_id"],
        queue=row["queue"],
        published_at=row["published_at"],
        eta=row["eta"],
        started_at=row["started_at"],
        closed_at=row["closed_at"],
        heartbeat_at=row["heartbeat_at"],
        worker=row["worker"],
        host=row["host"],
        pid=row["pid"],
        pid_started=row["pid_started"],
        acks_late=row["acks_late"],
        max_retries=row["max_retries"],
        deliveries=row["deliveries"],
        losses=row["losses"],
        deadline_at=row["deadline_at"],
        error_type=row["error_type"],
        error=row["error"],
        traceback=row["traceback"],
        progress=_maybe_progress(
            row["progress_value"], row["progress_start"], row["progress_target"], row["progress_unit"]
        ),
        waiting_seconds=_seconds(could_begin, row["started_at"] or over),
        run_seconds=_seconds(row["started_at"], over),
    )


def _seconds(begin: datetime | None, end: datetime) -> float | None:
    # The two may come from the clocks of two machines.
    return None if begin is None else max(0.0, (end - begin).total_seconds())


def _maybe_progress(
    value: float | None, start: float | None, target: float | None, unit: str | None
) -> ProgressView | None:
    return None if value is None else _progress(value, start, target, unit)


def _progress(value: float, start: float | None, target: float | None, unit: str | None) -> ProgressView:
    return ProgressView(
        value=value,
        start=0.0 if start is None else start,
        target=100.0 if target is None else target,
        unit="%" if unit is None else unit,
    )


def _plain_number(number: float) -> float | int:
    # Today's resource has integers there, and a reader may have no other type for them.
    return int(number) if number == int(number) else number
