"""The six classes that plugins and web routes work with, on the tables of the QHAna plugin runner."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple, Self, TypeVar, cast

from sqlalchemy import (
    Boolean,
    ColumnElement,
    Connection,
    Float,
    ForeignKey,
    Integer,
    PrimaryKeyConstraint,
    String,
    Text,
    event,
    inspect,
    select,
    update,
)
from sqlalchemy.ext.hybrid import hybrid_property
from sqlalchemy.ext.orderinglist import OrderingList, ordering_list
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    Mapper,
    ORMExecuteState,
    QueryContext,
    Session,
    mapped_column,
    object_session,
    relationship,
)
from sqlalchemy.orm.attributes import History, flag_dirty, get_history, set_committed_value

from . import documents, finality, tables, tasklog
from .columns import JsonDocument, NullAs, RunnerTime, RunnerTimeOr, StatusWord
from .documents import Document
from .errors import ProgressError, TaskFinishedError, TextTooLongError
from .finality import TaskFinishedWarning
from .rows import LARGEST_ID, is_open_step, lock_task, step_row, task_row
from .sessions import current_session, current_settings, note_write
from .states import UNKNOWN, TaskStatus, check_status, is_terminal, with_error_word
from .tables import job_table, now
from .tasklog import PendingLog

__all__ = [
    "Base",
    "ProcessingTask",
    "Step",
    "TaskFile",
    "TaskFinishedWarning",
    "TaskLink",
    "TaskUpdateSubscription",
    "WebhookRef",
]

#: A file of this type is no result.
TEMPORARY_FILE_TYPE: Final = "temp-file"

#: What a moment that is NULL in the database of a plugin runner reads as; it sorts before every real one.
UNKNOWN_MOMENT: Final = datetime(1970, 1, 1, tzinfo=UTC)

T = TypeVar("T")


class _Default:
    """Stands in a signature for a value that is made at the call.

    Args:
        text: How it is shown.
        make: Makes the value.
    """

    def __init__(self, text: str, make: Callable[[], Any]) -> None:
        self._text = text
        self.make = make

    def __repr__(self) -> str:
        return self._text


_NOW: Any = _Default("<now>", now)
_NEW_DICT: Any = _Default("<factory>", dict)
_NEW_LIST: Any = _Default("<factory>", list)


def _made(value: T) -> T:
    return cast(T, value.make()) if isinstance(value, _Default) else value


def _never(task_id: int) -> bool:
    return False


#: Tells whether the calling code runs in an execution of the given task. Set by whoever knows of executions.
inside_execution_of: Callable[[int], bool] = _never


class Base(DeclarativeBase):
    """Base of the mapped classes."""

    metadata = tables.metadata


def _row_id(value: object) -> int | None:
    """Return the id that an int or a text of ASCII digits names, None for everything else."""
    if isinstance(value, str):
        value = int(value) if value.isascii() and value.isdigit() and len(value) <= 18 else None
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    return value if 0 <= value <= LARGEST_ID else None


def _task_id(task: ProcessingTask | int | str) -> int | None:
    return task.id if isinstance(task, ProcessingTask) else _row_id(task)


class _Saved:
    """What classes share whose objects put themselves into a session."""

    def _session(self) -> Session:
        """The session that the object is in, else the current one."""
        return object_session(self) or current_session()

    def save(self, commit: bool = False) -> None:
        """Add this object to the current session.

        Args:
            commit: Also commit the session, and with it everything that was changed in it.

        Raises:
            NotConfiguredError: If there is no `TaskState` in this process.
        """
        session = self._session()
        session.add(self)
        if commit:
            session.commit()


def _read_anew(cls: type[T], id_: object) -> T | None:
    key = _row_id(id_)
    if key is None:
        return None
    session = current_session()
    session.flush()
    for child in list(session.identity_map.values()):
        # A collection that is loaded again does not refresh the objects in it that are known already.
        if isinstance(child, (Step, TaskFile, TaskLink, TaskUpdateSubscription)) and _parent_id(child) == key:
            session.expire(child)
    return session.get(cls, key, populate_existing=True)


def _parent_id(child: Any) -> Any:
    return child.__dict__.get("id" if isinstance(child, Step) else "task_id")


class ProcessingTask(_Saved, Base):
    """One logical job, whatever it consists of: its status, progress, log, steps, outputs and links.

    Attributes:
        id: Made by the database at the first flush.
        task_name: Name of the job, at most 500 characters.
        started_at: When it was made; aware UTC, a naive value counts as UTC.
        finished_at: When it ended, None while it has not.
        parameters: Its parameters as text, in QHAna JSON.
        data: Any JSON value; every change inside it is noticed. Two processes that change different keys of its
            dicts do not lose each other's changes, a list is one value.
        multi_step: Whether it ever had a step.
        steps: Its steps, oldest first; only `add_next_step` adds one.
        current_step: Number of the newest step, -1 without any.
        progress_value: How far it has come, in `progress_unit`; None while nothing was reported.
        progress_start: The value at the beginning.
        progress_target: The value at the end.
        progress_unit: Name of the unit, at most 100 characters.
        task_status: None, PENDING, SUCCESS or ERROR; FAILURE is taken as ERROR. A terminal word ends the task.
            The word for an error is that of the setting `taskstate_error_status`.
        outputs: Its files.
        links: Its links.
        subscriptions: Who wants to know of changes.

    A task that has ended keeps its status and `finished_at`: a new value is ignored with a `TaskFinishedWarning`,
    also if it ended in another session meanwhile. A text that is longer than its column raises a
    `TextTooLongError` where it is assigned.
    """

    __tablename__ = "ProcessingTask"

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    task_name: Mapped[str] = mapped_column(NullAs(String(500), ""), nullable=True)
    started_at: Mapped[datetime] = mapped_column(RunnerTimeOr(UNKNOWN_MOMENT), default=now, nullable=True)
    finished_at: Mapped[datetime | None] = mapped_column(RunnerTime())
    parameters: Mapped[str] = mapped_column(NullAs(Text(), ""), default="", nullable=True)
    data: Mapped[Any] = mapped_column(JsonDocument(), default=dict, nullable=True)
    multi_step: Mapped[bool] = mapped_column(NullAs(Boolean(), False), default=False, nullable=True)
    current_step: Mapped[int] = mapped_column(NullAs(Integer(), -1), default=-1, nullable=True)
    progress_value: Mapped[float | None] = mapped_column(Float())
    progress_start: Mapped[float] = mapped_column(NullAs(Float(), 0.0), default=0.0, nullable=True)
    progress_target: Mapped[float] = mapped_column(NullAs(Float(), 100.0), default=100.0, nullable=True)
    progress_unit: Mapped[str] = mapped_column(NullAs(String(100), "%"), default="%", nullable=True)
    task_status: Mapped[str | None] = mapped_column(StatusWord(String(100)))
    # Deferred, since it can be long and `task_log` reads it together with the entries.
    _log_column: Mapped[str] = mapped_column("task_log", Text(), default="", nullable=False, deferred=True)

    steps: Mapped[OrderingList[Step]] = relationship(
        order_by="Step.number", collection_class=ordering_list("number"), cascade="all, delete-orphan"
    )
    outputs: Mapped[list[TaskFile]] = relationship(back_populates="task", order_by="TaskFile.id", cascade="all")
    links: Mapped[list[TaskLink]] = relationship(back_populates="task", order_by="TaskLink.id", cascade="all")
    subscriptions: Mapped[list[TaskUpdateSubscription]] = relationship(
        back_populates="task", order_by="TaskUpdateSubscription.id", cascade="all"
    )

    def __init__(
        self,
        task_name: str,
        started_at: datetime = _NOW,
        finished_at: datetime | None = None,
        parameters: str = "",
        data: Any = _NEW_DICT,
        multi_step: bool = False,
        steps: Iterable[Step] = _NEW_LIST,
        current_step: int = -1,
        progress_value: float | None = None,
        progress_start: float = 0,
        progress_target: float = 100,
        progress_unit: str = "%",
        task_status: str | None = None,
        task_log: str = "",
        outputs: Iterable[TaskFile] = _NEW_LIST,
        links: Iterable[TaskLink] = _NEW_LIST,
        subscriptions: Iterable[TaskUpdateSubscription] = _NEW_LIST,
    ) -> None:
        self.task_name = task_name
        self.started_at = _made(started_at)
        self.finished_at = finished_at
        self.parameters = parameters
        self.data = _made(data)
        self.multi_step = multi_step
        self.steps.extend(_made(steps))
        self.current_step = current_step
        self.progress_value = progress_value
        self.progress_start = progress_start
        self.progress_target = progress_target
        self.progress_unit = progress_unit
        self.task_status = task_status
        self.outputs.extend(_made(outputs))
        self.links.extend(_made(links))
        self.subscriptions.extend(_made(subscriptions))
        log = _log_of(self)
        log.seen = ""
        log.assign(task_log)

    def __repr__(self) -> str:
        # Neither parameters nor data, which may hold secrets, and nothing that would ask the database.
        known = self.__dict__
        if "finished_at" not in known or "task_status" not in known:
            return f"<ProcessingTask {known.get('id')}>"
        return f"<ProcessingTask {known.get('id')} {known.get('task_name')!r} {self.status}>"

    @classmethod
    def get_by_id(cls, id_: int | str) -> Self | None:
        """Return the task with an id as it is in the database now; unsaved changes are flushed first.

        Args:
            id_: An int or its decimal digits as text.

        Returns:
            None if there is no such row, or if this is no id.
        """
        return _read_anew(cls, id_)

    @property
    def is_finished(self) -> bool:
        """Whether the task has ended, in whatever way."""
        return self.finished_at is not None

    @property
    def is_ok(self) -> bool:
        """Whether the task has ended as SUCCESS."""
        return self.is_finished and self.task_status == TaskStatus.SUCCESS

    @property
    def status(self) -> str:
        """PENDING while the task has not ended, then `task_status`, or UNKNOWN if the row has no word for its end."""
        if not self.is_finished:
            return TaskStatus.PENDING.value
        return self.task_status or UNKNOWN

    @hybrid_property
    def task_log(self) -> str:
        """The whole log. `=` replaces it, `+=` adds to it; neither loses what another process adds meanwhile."""
        log = _log_of(self)
        state = inspect(self)
        if state.persistent:
            return log.show(tasklog.read(self._session(), self.id))
        if state.detached:
            return log.seen if log.seen is not None else self._log_column
        return log.show("")

    @task_log.inplace.setter
    def _set_task_log(self, value: str) -> None:
        log = _log_of(self)
        log.assign(value)
        self._note_log()

    @task_log.inplace.expression
    @classmethod
    def _task_log_expression(cls) -> ColumnElement[str]:
        return cast("ColumnElement[str]", cls._log_column)

    def _note_log(self) -> None:
        if inspect(self).persistent and _log_of(self).dirty:
            flag_dirty(self)

    def add_task_log_entry(self, task_log: str, commit: bool = False) -> None:
        """Add an entry to the log, on a line of its own. It belongs to the session and rolls back with it.

        Args:
            task_log: One or several lines.
            commit: Also save the task and commit its session.

        Raises:
            TypeError: If it is no text.
        """
        _log_of(self).add(task_log)
        self._note_log()
        if commit:
            self.save(commit=True)

    @property
    def has_uncleared_step(self) -> bool:
        """Whether the task waits at a step for input."""
        return any(not step.cleared for step in self.steps)

    def add_next_step(self, href: str, ui_href: str, step_id: str, commit: bool = False) -> None:
        """Add a step at which the task waits for input. It is written at once, in the transaction of the session.

        Args:
            href: URL of the REST entry point.
            ui_href: URL of the micro frontend that belongs to it.
            step_id: Id of the step, stored as given.
            commit: Also commit the session.

        Raises:
            AssertionError: If the newest step is not cleared; also for the second of two callers at once.
            TaskFinishedError: If the task has ended.
            TextTooLongError: If a text is longer than its column.
        """
        step = Step(id=self.id, step_id=step_id, href=href, ui_href=ui_href)
        if inspect(self).persistent:
            self._add_step(step)
        else:
            _assert_cleared(self.steps[-1] if self.steps else None)
            if self.is_finished:
                raise TaskFinishedError(self.id, self.status)
            step.number = len(self.steps)
            self.steps.append(step)
            self.multi_step = True
            self.current_step = step.number
        if commit:
            self.save(commit=True)

    def _add_step(self, step: Step) -> None:
        session = self._session()
        undo = None if session.in_transaction() or session.dirty else session.rollback
        try:
            session.flush()
            connection = session.connection()
            note_write(session)
            locked = lock_task(connection, step.id, task_row.c.finished_at, task_row.c.task_status)
            if locked is not None and locked.finished_at is not None:
                raise TaskFinishedError(step.id, locked.task_status or UNKNOWN)
            newest = self._reload_steps(session)
            _assert_cleared(newest)
        except BaseException:
            # Nobody but this call opened the transaction: the lock must not outlive it.
            if undo is not None:
                undo()
            raise
        step.number = 0 if newest is None else newest.number + 1
        self.steps.append(step)
        self.multi_step = True
        self.current_step = step.number
        session.flush()
        connection.execute(update(job_table).where(job_table.c.task_id == step.id).values(parked=True))

    def _reload_steps(self, session: Session) -> Step | None:
        """Read the steps as they are now, and return the newest. Needs the lock of the task's row."""
        with session.no_autoflush:
            steps = session.scalars(
                select(Step)
                .where(Step.id == self.id)
                .order_by(Step.number)
                .with_for_update()
                .execution_options(populate_existing=True)
            ).all()
        set_committed_value(self, "steps", steps)
        return steps[-1] if steps else None

    def clear_previous_step(self, commit: bool = False) -> bool:
        """Note that the newest step got its input. It is written at once, in the transaction of the session.

        Args:
            commit: Also commit the session.

        Returns:
            Whether this very call cleared it: of several callers at once, only one is told so. False without a
            step.
        """
        if inspect(self).persistent:
            cleared = self._clear_step()
        else:
            newest = self.steps[-1] if self.steps else None
            cleared = newest is not None and not newest.cleared
            if newest is not None and cleared:
                newest.cleared = True
        if commit:
            self.save(commit=True)
        return cleared

    def _clear_step(self) -> bool:
        session = self._session()
        session.flush()
        task_id = self.id
        if session.execute(select(step_row.c.number).where(is_open_step(task_id)).limit(1)).first() is None:
            # Somebody else may have cleared it since it was loaded.
            _show_cleared(session, task_id)
            return False
        connection = session.connection()
        note_write(session)
        lock_task(connection, task_id)
        cleared = _clear_steps(connection, task_id)
        _show_cleared(session, task_id)
        return cleared


def _assert_cleared(newest: Step | None) -> None:
    if newest is not None and not newest.cleared:
        raise AssertionError(
            f"step {newest.step_id!r} still waits for input; call clear_previous_step() before add_next_step()"
        )


def _clear_steps(connection: Connection, task_id: int, number: int | None = None) -> bool:
    """Clear what is open; returns whether something was. Needs the lock of the task's row."""
    condition = is_open_step(task_id) if number is None else is_open_step(task_id) & (step_row.c.number == number)
    cleared = connection.execute(update(step_row).where(condition).values(cleared=True))
    if cleared.rowcount and inside_execution_of(task_id):
        # The execution that cleared it goes on with the work; nothing has to be started from outside.
        connection.execute(update(job_table).where(job_table.c.task_id == task_id).values(parked=False))
    return cleared.rowcount > 0


def _show_cleared(session: Session, task_id: int) -> None:
    for step in list(session.identity_map.values()):
        if isinstance(step, Step) and step.__dict__.get("id") == task_id and "cleared" in step.__dict__:
            set_committed_value(step, "cleared", True)


class Step(Base):
    """A point where a task waits for a person's input.

    Attributes:
        id: Id of the `ProcessingTask`.
        number: Position among the steps of the task, from 0.
        step_id: Name of the step, at most 500 characters.
        href: URL of the REST entry point, at most 500 characters.
        ui_href: URL of the micro frontend that belongs to it, at most 500 characters.
        cleared: Whether the input has come.
    """

    __tablename__ = "Step"
    __table_args__ = (PrimaryKeyConstraint("id", "number"),)

    id: Mapped[int] = mapped_column(Integer, ForeignKey("ProcessingTask.id"), primary_key=True, autoincrement=False)
    step_id: Mapped[str] = mapped_column(NullAs(String(500), ""), nullable=True)
    number: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    href: Mapped[str] = mapped_column(NullAs(String(500), ""), nullable=True)
    ui_href: Mapped[str] = mapped_column(NullAs(String(500), ""), nullable=True)
    cleared: Mapped[bool] = mapped_column(NullAs(Boolean(), False), default=False, nullable=True)

    def __init__(self, id: int, step_id: str, href: str, ui_href: str, cleared: bool = False) -> None:
        self.id = id
        self.step_id = step_id
        self.href = href
        self.ui_href = ui_href
        self.cleared = cleared

    def __repr__(self) -> str:
        known = self.__dict__
        return f"<Step {known.get('number')} of {known.get('id')} {known.get('step_id')!r}>"


class TaskFile(_Saved, Base):
    """A file that belongs to a task.

    Attributes:
        id: Made by the database at the first flush.
        task: The task.
        security_tag: Random text that its URL must carry, at most 64 characters.
        storage_provider: Name of the store that holds it, at most 64 characters.
        file_name: Name shown to people, at most 500 characters.
        file_storage_data: What the store finds it by.
        file_type: QHAna's type of the data, at most 255 characters; "temp-file" is no result.
        mimetype: Type of the format, at most 255 characters.
        created_at: When it was made; aware UTC, a naive value counts as UTC.
        task_id: Id of the task.
    """

    __tablename__ = "TaskFile"

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    security_tag: Mapped[str] = mapped_column(String(64))
    storage_provider: Mapped[str] = mapped_column(String(64))
    file_name: Mapped[str] = mapped_column(String(500), index=True)
    file_storage_data: Mapped[str] = mapped_column(Text())
    file_type: Mapped[str | None] = mapped_column(String(255))
    mimetype: Mapped[str | None] = mapped_column(String(255))
    created_at: Mapped[datetime] = mapped_column(RunnerTimeOr(UNKNOWN_MOMENT), default=now, nullable=True)
    task_id: Mapped[int | None] = mapped_column(Integer, ForeignKey("ProcessingTask.id"), index=True)

    task: Mapped[ProcessingTask] = relationship(back_populates="outputs")

    def __init__(
        self,
        task: ProcessingTask,
        security_tag: str,
        storage_provider: str,
        file_name: str,
        file_storage_data: str,
        file_type: str | None,
        mimetype: str | None = None,
        created_at: datetime = _NOW,
    ) -> None:
        self.security_tag = security_tag
        self.storage_provider = storage_provider
        self.file_name = file_name
        self.file_storage_data = file_storage_data
        self.file_type = file_type
        self.mimetype = mimetype
        self.created_at = _made(created_at)
        self.task = task

    def __repr__(self) -> str:
        known = self.__dict__
        return f"<TaskFile {known.get('id')} {known.get('file_name')!r}>"

    @classmethod
    def get_by_id(cls, id_: int | str) -> Self | None:
        """Return the file with an id as it is in the database now; unsaved changes are flushed first.

        Args:
            id_: An int or its decimal digits as text.

        Returns:
            None if there is no such row, or if this is no id.
        """
        return _read_anew(cls, id_)

    @classmethod
    def get_task_result_files(cls, task: int | ProcessingTask) -> Sequence[TaskFile]:
        """Return the files of a task that are results: those with a type other than "temp-file", oldest first."""
        # NULL differs from everything in SQL, so a file without type is left out too.
        return list(
            current_session().scalars(
                select(TaskFile)
                .where(TaskFile.task_id == _task_id(task), TaskFile.file_type != TEMPORARY_FILE_TYPE)
                .order_by(TaskFile.id)
            )
        )


class TaskLink(Base):
    """A link that is shown with the result of a task.

    Attributes:
        id: Made by the database at the first flush.
        task: The task.
        type: What is found there, at most 64 characters.
        href: The URL, at most 500 characters.
        task_id: Id of the task.
    """

    __tablename__ = "TaskLink"

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    type: Mapped[str] = mapped_column(String(64))
    href: Mapped[str] = mapped_column(String(500))
    task_id: Mapped[int | None] = mapped_column(Integer, ForeignKey("ProcessingTask.id"), index=True)

    task: Mapped[ProcessingTask] = relationship(back_populates="links")

    def __init__(self, task: ProcessingTask, type: str, href: str) -> None:
        self.type = type
        self.href = href
        self.task = task

    def __repr__(self) -> str:
        known = self.__dict__
        return f"<TaskLink {known.get('id')} {known.get('type')!r}>"


class WebhookRef(NamedTuple):
    """Where to call, and what to name as the source.

    Attributes:
        webhook_href: The URL to call.
        task_href: The URL of the task, as the subscriber gave it.
    """

    webhook_href: str
    task_href: str


class TaskUpdateSubscription(_Saved, Base):
    """Somebody who wants to be told of changes of a task.

    Attributes:
        id: Made by the database at the first flush.
        task: The task.
        webhook_href: The URL to call, at most 500 characters.
        task_href: The URL of the task as the subscriber knows it, at most 500 characters.
        event_type: `status`, `steps` or `details`, at most 64 characters; None for every event.
        task_id: Id of the task.
    """

    __tablename__ = "TaskUpdateSubscription"

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    webhook_href: Mapped[str] = mapped_column(String(500))
    task_href: Mapped[str] = mapped_column(String(500))
    event_type: Mapped[str | None] = mapped_column(String(64))
    task_id: Mapped[int | None] = mapped_column(Integer, ForeignKey("ProcessingTask.id"), index=True)

    task: Mapped[ProcessingTask] = relationship(back_populates="subscriptions")

    def __init__(self, task: ProcessingTask, webhook_href: str, task_href: str, event_type: str | None = None) -> None:
        self.webhook_href = webhook_href
        self.task_href = task_href
        self.event_type = event_type
        self.task = task

    def __repr__(self) -> str:
        known = self.__dict__
        return f"<TaskUpdateSubscription {known.get('id')} to {known.get('event_type') or 'everything'}>"

    @classmethod
    def get_by_task_and_event(cls, task: int | ProcessingTask, event: str | None = None) -> list[WebhookRef]:
        """Return whom to call when something happens to a task.

        Args:
            task: The task or its id.
            event: What happened; subscriptions without a type match it too. None returns all.
        """
        query = select(cls.webhook_href, cls.task_href).where(cls.task_id == _task_id(task)).order_by(cls.id)
        if event is not None:
            query = query.where((cls.event_type == event) | cls.event_type.is_(None))
        return [WebhookRef(row.webhook_href, row.task_href) for row in current_session().execute(query)]

    @classmethod
    def get_by_task_and_subscriber(
        cls,
        task: int | ProcessingTask,
        webhook_href: str,
        event: str | None = ...,  # type: ignore[assignment]  # seed
    ) -> list[TaskUpdateSubscription]:
        """Return the subscriptions of one webhook to a task.

        Args:
            task: The task or its id.
            webhook_href: The URL that is called.
            event: Only those of this type; None means those without a type, `...` all.
        """
        query = (
            select(TaskUpdateSubscription)
            .where(cls.task_id == _task_id(task), cls.webhook_href == webhook_href)
            .order_by(cls.id)
        )
        if event is not cast(Any, ...):
            query = query.where(cls.event_type.is_(None) if event is None else cls.event_type == event)
        return list(current_session().scalars(query))


# What follows makes the classes keep their promises: checks at assignment, then at the flush, then bulk statements.

_LOG_INFO: Final = "qhana_taskstate_log"
_ENDED_INFO: Final = "qhana_taskstate_ended_here"
_TOUCHED: Final = "qhana_taskstate_touched_tasks"


def _log_of(task: ProcessingTask) -> PendingLog:
    log: PendingLog | None = inspect(task).info.get(_LOG_INFO)
    if log is None:
        log = inspect(task).info[_LOG_INFO] = PendingLog()
    return log


def _touch(task: ProcessingTask) -> None:
    """Remember that a transaction left a mark on this object, to be removed when it ends."""
    session = object_session(task)
    if session is not None:
        session.info.setdefault(_TOUCHED, set()).add(task)


def _limit_text(cls: type[Base], key: str, limit: int) -> None:
    def check(target: object, value: object, old: object, initiator: object) -> object:
        if isinstance(value, str) and len(value) > limit:
            raise TextTooLongError(
                f"{cls.__name__}.{key} of {len(value)} characters is too long; its column holds {limit}"
            )
        return value

    event.listen(getattr(cls, key), "set", check, retval=True)


def _fill_in(cls: type[Base], key: str, default: object) -> None:
    def check(target: object, value: object, old: object, initiator: object) -> object:
        return default if value is None else value

    event.listen(getattr(cls, key), "set", check, retval=True)


def _check_columns() -> None:
    for mapper in Base.registry.mappers:
        for attribute in mapper.column_attrs:
            column_type = attribute.columns[0].type
            inner = column_type.inner if isinstance(column_type, (NullAs, StatusWord)) else column_type
            if isinstance(inner, String) and inner.length is not None:
                _limit_text(mapper.class_, attribute.key, inner.length)
            if isinstance(column_type, NullAs):
                _fill_in(mapper.class_, attribute.key, column_type.default)
            if isinstance(column_type, RunnerTime):
                event.listen(getattr(mapper.class_, attribute.key), "set", _moment, retval=True)
            if isinstance(inner, Float):
                event.listen(getattr(mapper.class_, attribute.key), "set", _finite, retval=True)


def _moment(target: object, value: object, old: object, initiator: Any) -> object:
    if value is None:
        return None
    if not isinstance(value, datetime):
        raise TypeError(f"{initiator.key} is a datetime, not {type(value).__name__} {value!r}")
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def _finite(target: object, value: object, old: object, initiator: Any) -> object:
    if value is None:
        return None
    number = math.nan
    if not isinstance(value, (str, bytes, bool)):
        try:
            number = float(cast(Any, value))
        except (TypeError, ValueError, OverflowError):
            number = math.nan
    if not math.isfinite(number):
        raise ProgressError(f"{initiator.key} {value!r} is no finite number")
    return number


def _committed(task: ProcessingTask, key: str) -> Any:
    """Return what the row of a task holds in an attribute, as far as this object knows."""
    state = inspect(task)
    if key in state.committed_state:
        value = state.committed_state[key]
        return value if value is None or isinstance(value, (str, datetime)) else None
    return getattr(task, key)


def _has_ended(task: ProcessingTask) -> bool:
    state = inspect(task)
    return (state.persistent or state.detached) and _committed(task, "finished_at") is not None


def _warn_finished(task: ProcessingTask, what: str, stacklevel: int) -> None:
    warnings.warn(
        f"task {task.__dict__.get('id')} has already ended as {_committed(task, 'task_status') or UNKNOWN}; "
        f"{what} is ignored",
        TaskFinishedWarning,
        stacklevel=stacklevel,
    )


# Frames from `warnings.warn` to the assignment: two of this module and five of SQLAlchemy 2.0 and 2.1.
_ASSIGNMENT: Final = 7


def _on_status(task: ProcessingTask, value: str | None, old: object, initiator: object) -> object:
    word = with_error_word(check_status(value), current_settings().error_status)
    if not _has_ended(task):
        return word
    stored = _committed(task, "task_status")
    if not is_terminal(stored) and inspect(task).info.get(_ENDED_INFO) and is_terminal(word):
        # A query flushed `finished_at` before its word was set.
        return word
    if word != stored:
        _warn_finished(task, f"the new status {value!r}", _ASSIGNMENT)
    return old


def _on_finished_at(task: ProcessingTask, value: datetime | None, old: object, initiator: object) -> object:
    if not _has_ended(task):
        return value
    if value != old and not inspect(task).info.get(_ENDED_INFO):
        _warn_finished(task, f"the new finished_at {value}", _ASSIGNMENT)
    return old


def _on_data(task: ProcessingTask, value: object, old: object, initiator: object) -> object:
    return Document.of(task, "data").assign(value, old)


def _on_load(task: ProcessingTask, context: QueryContext) -> None:
    Document.of(task, "data").loaded()


def _on_refresh(task: ProcessingTask, context: QueryContext, attributes: Iterable[str] | None) -> None:
    if attributes is None or "data" in attributes:
        Document.of(task, "data").loaded()


def _before_insert(mapper: Mapper[ProcessingTask], connection: Connection, task: ProcessingTask) -> None:
    if is_terminal(task.task_status) and task.finished_at is None:
        task.finished_at = now()
    if task.finished_at is not None:
        if task.task_status == TaskStatus.SUCCESS and task.progress_value is not None:
            task.progress_value = task.progress_target
        for step in task.steps:
            step.cleared = True
    _check_bytes(connection, task)
    task._log_column = tasklog.tail(_log_of(task).show(""), tasklog.column_limit(connection.dialect.name))


def _after_insert(mapper: Mapper[ProcessingTask], connection: Connection, task: ProcessingTask) -> None:
    log = _log_of(task)
    tasklog.insert_entries(connection, task.id, log.entries)
    log.clear()
    # It would go on showing what was inserted.
    task.__dict__.pop("_log_column", None)


def _before_update(mapper: Mapper[ProcessingTask], connection: Connection, task: ProcessingTask) -> None:
    _check_bytes(connection, task)
    document = Document.of(task, "data")
    if document.dirty:
        row = lock_task(connection, task.id, task_row.c.data)
        if row is not None:
            document.merge(row.data)
    if get_history(task, "task_status").has_changes() or get_history(task, "finished_at").has_changes():
        _write_status(connection, task)
    log = _log_of(task)
    if log.replaces:
        tasklog.replace(connection, task.id, tasklog.join(log.entries))
    else:
        tasklog.append(connection, task.id, log.entries)
    log.clear()


def _write_status(connection: Connection, task: ProcessingTask) -> None:
    """Write a changed status now, guarded, and leave nothing of it to the unit of work."""
    word = task.task_status
    if _committed(task, "finished_at") is not None:
        # Only an end of unknown kind that this very transaction wrote gets here.
        if word is not None:
            finality.name_end(connection, task.id, word)
        set_committed_value(task, "task_status", word)
        set_committed_value(task, "finished_at", _committed(task, "finished_at"))
        return
    wanted = task.finished_at
    if wanted is None and not is_terminal(word):
        ending = finality.set_status(connection, task.id, word)
    else:
        ending = finality.end(
            connection,
            task.id,
            word if is_terminal(word) else None,
            wanted or now(),
            progress_value=_added(task, "progress_value"),
            progress_target=_added(task, "progress_target"),
        )
    if ending is None:
        # The row is gone. The unit of work notices it by its own UPDATE and says so.
        return
    set_committed_value(task, "task_status", ending.status)
    set_committed_value(task, "finished_at", ending.finished_at)
    if ending.ended:
        set_committed_value(task, "progress_value", ending.progress_value)
        inspect(task).info[_ENDED_INFO] = True
        _touch(task)
        session = object_session(task)
        if session is not None:
            _show_cleared(session, task.id)
            for step in task.__dict__.get("steps", ()):
                if inspect(step).pending:
                    step.cleared = True
    if not ending.accepted:
        _warn_finished(task, f"the new status {word!r}", 2)


def _added(task: ProcessingTask, key: str) -> Any:
    history: History = get_history(task, key)
    return history.added[0] if history.added else None


def _before_step_update(mapper: Mapper[Step], connection: Connection, step: Step) -> None:
    if step.cleared and get_history(step, "cleared").has_changes():
        lock_task(connection, step.id)
        _clear_steps(connection, step.id, step.number)
        set_committed_value(step, "cleared", True)


def _before_child_insert(mapper: Mapper[Any], connection: Connection, child: Any) -> None:
    _check_bytes(connection, child)
    # There a foreign key takes a shared lock of the task's row. Two sessions that both insert and then both change
    # the row would each wait for the other.
    if connection.dialect.name in {"mysql", "mariadb"}:
        task_id = child.id if isinstance(child, Step) else child.task_id
        if task_id is not None:
            lock_task(connection, task_id)


def _check_bytes(connection: Connection, target: Any) -> None:
    if connection.dialect.name not in {"mysql", "mariadb"}:
        return
    for key in ("parameters", "file_storage_data"):
        value = target.__dict__.get(key)
        if isinstance(value, str) and len(value) * 4 > tasklog.MYSQL_TEXT_BYTES:
            size = len(value.encode())
            if size > tasklog.MYSQL_TEXT_BYTES:
                raise TextTooLongError(
                    f"{type(target).__name__}.{key} of {size} bytes is too long; "
                    f"its column holds {tasklog.MYSQL_TEXT_BYTES} on this database"
                )


def _after_commit(session: Session) -> None:
    if session.in_nested_transaction():
        return
    documents.committed(session)
    for task in session.info.pop(_TOUCHED, ()):
        inspect(task).info.pop(_ENDED_INFO, None)


def _after_rollback(session: Session, previous: Any) -> None:
    documents.rolled_back(session, wholly=not previous.nested)
    for task in session.info.pop(_TOUCHED, ()):
        inspect(task).info.pop(_ENDED_INFO, None)


def _on_expire(task: ProcessingTask, attributes: Iterable[str] | None) -> None:
    # As for every other attribute, what was not flushed is given up.
    if attributes is None:
        _log_of(task).clear()


def _on_execute(state: ORMExecuteState) -> None:
    if state.is_update and state.bind_mapper is not None and state.bind_mapper.class_ is ProcessingTask:
        pass


_check_columns()
event.listen(ProcessingTask.task_status, "set", _on_status, retval=True, active_history=True)
event.listen(ProcessingTask.finished_at, "set", _on_finished_at, retval=True, active_history=True)
event.listen(ProcessingTask.data, "set", _on_data, retval=True, active_history=True)
event.listen(ProcessingTask, "load", _on_load)
event.listen(ProcessingTask, "refresh", _on_refresh)
event.listen(ProcessingTask, "expire", _on_expire)
event.listen(ProcessingTask, "before_insert", _before_insert)
event.listen(ProcessingTask, "after_insert", _after_insert)
event.listen(ProcessingTask, "before_update", _before_update)
event.listen(Step, "before_update", _before_step_update)
for _child in (Step, TaskFile, TaskLink, TaskUpdateSubscription):
    event.listen(_child, "before_insert", _before_child_insert)
event.listen(Session, "after_commit", _after_commit)
event.listen(Session, "after_soft_rollback", _after_rollback)
