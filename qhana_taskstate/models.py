"""The six classes that plugins and web routes work with, on the tables of the QHAna plugin runner."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from types import EllipsisType
from typing import Any, ClassVar, Final, NamedTuple, Self, TypeVar, cast

from sqlalchemy import (
    ColumnElement,
    and_,
    inspect,
    select,
)
from sqlalchemy.ext.hybrid import hybrid_property
from sqlalchemy.ext.orderinglist import OrderingList, ordering_list
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, deferred, object_session, relationship
from sqlalchemy.orm.attributes import flag_dirty, set_committed_value

from . import bulk, checks, events, flushes, steps, tables, tasklog
from .belonging import inside_execution_of
from .clock import now
from .ending import TaskFinishedWarning
from .errors import TaskFinishedError
from .ids import row_id
from .rows import lock_task
from .runner_tables import file_table, link_table, step_table, subscription_table, task_table
from .sessions import current_session, current_sessions, explaining, note_write
from .states import UNKNOWN, TaskEvent, TaskStatus
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


class Base(DeclarativeBase):
    """Base of the mapped classes."""

    metadata = tables.metadata


B = TypeVar("B", bound=Base)


def _task_id(task: Base | int | str) -> int | None:
    found: int | None = getattr(task, "id", None) if isinstance(task, Base) else row_id(task)
    return found


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
            SchemaError: If the tables are missing or too old.
            DatabaseUnavailableError: If the database cannot be reached.
        """
        session = self._session()
        session.add(self)
        if commit:
            with explaining(session):
                session.commit()


def _read_anew(cls: type[B], id_: object) -> B | None:
    key = row_id(id_)
    if key is None:
        return None
    session = current_session()
    with explaining(session):
        return _get_anew(session, cls, key)


def _get_anew(session: Session, cls: type[B], key: int) -> B | None:
    session.flush()
    if cls.__table__ is task_table:
        # A collection that is loaded again does not refresh the objects in it that are known already.
        for child in list(session.identity_map.values()):
            if isinstance(child, Base) and _parent_id(child) == key:
                session.expire(child)
    return session.get(cls, key, populate_existing=True)


def _parent_id(row: Base) -> Any:
    """Return the id of the task that a row refers to, None for a task."""
    return row.__dict__.get("id" if row.__table__ is step_table else "task_id")


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
    `TextTooLongError` where it is assigned. In texts that people read (here and in `TaskFile.file_name`), characters
    that no database takes (NUL, lone surrogates) are replaced; in ids, addresses, types, tags and paths they raise a
    `TextCharacterError`.
    """

    __table__ = task_table

    id: Mapped[int]
    task_name: Mapped[str]
    started_at: Mapped[datetime]
    finished_at: Mapped[datetime | None]
    parameters: Mapped[str]
    data: Mapped[Any]
    multi_step: Mapped[bool]
    current_step: Mapped[int]
    progress_value: Mapped[float | None]
    progress_start: Mapped[float]
    progress_target: Mapped[float]
    progress_unit: Mapped[str]
    task_status: Mapped[str | None]
    # Mapped under this name, so that sessions know it (`refresh`, `expire`); `_whole_log` takes its place below.
    # Deferred, since it can be long and is read together with the entries.
    task_log: Mapped[str] = deferred(task_table.c.task_log)
    _log_column: ClassVar[Any]

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
        log = PendingLog.of(self)
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

        Raises:
            SchemaError: If the tables are missing or too old.
            DatabaseUnavailableError: If the database cannot be reached.
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
    def _whole_log(self) -> str:
        """The whole log. `=` replaces it, `+=` adds to it; neither loses what another process adds meanwhile."""
        log = PendingLog.of(self)
        state = inspect(self)
        if state.persistent:
            return log.show(tasklog.read(self._session(), self.id))
        if state.detached:
            return log.seen if log.seen is not None else str(self._log_column)
        return log.show("")

    @_whole_log.inplace.setter
    def _set_task_log(self, value: str) -> None:
        log = PendingLog.of(self)
        log.assign(value)
        self._note_log()

    @_whole_log.inplace.expression
    @classmethod
    def _task_log_expression(cls) -> ColumnElement[str]:
        return cast("ColumnElement[str]", cls._log_column)

    def _note_log(self) -> None:
        if inspect(self).has_identity and PendingLog.of(self).dirty:
            flag_dirty(self)

    def add_task_log_entry(self, task_log: str, commit: bool = False) -> None:
        """Add an entry to the log, on a line of its own. It belongs to the session and rolls back with it.

        Args:
            task_log: One or several lines.
            commit: Also save the task and commit its session.

        Raises:
            TypeError: If it is no text.
        """
        PendingLog.of(self).add(task_log)
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
            locked = lock_task(connection, step.id, task_table.c.finished_at, task_table.c.task_status)
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
        steps.park(connection, step.id, parked=True)

    def _reload_steps(self, session: Session) -> Step | None:
        """Read the steps as they are now, and return the newest. Needs the lock of the task's row."""
        with session.no_autoflush:
            found = session.scalars(
                select(Step)
                .where(Step.id == self.id)
                .order_by(Step.number)
                .with_for_update()
                .execution_options(populate_existing=True)
            ).all()
        set_committed_value(self, "steps", found)
        return found[-1] if found else None

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
        cleared = False
        if steps.has_open(session, task_id):
            connection = session.connection()
            note_write(session)
            lock_task(connection, task_id)
            cleared = steps.clear(connection, task_id, goes_on=inside_execution_of(task_id))
            if cleared:
                events.note(session, task_id, TaskEvent.STEPS)
        # Also if somebody else cleared it since it was loaded.
        steps.show_cleared(session, task_id, Step)
        return cleared


# Past the declarative class, which would map what it is given.
type.__setattr__(ProcessingTask, "_log_column", ProcessingTask.__dict__["task_log"])
type.__setattr__(ProcessingTask, "task_log", ProcessingTask.__dict__["_whole_log"])


def _assert_cleared(newest: Step | None) -> None:
    if newest is not None and not newest.cleared:
        raise AssertionError(
            f"step {newest.step_id!r} still waits for input; call clear_previous_step() before add_next_step()"
        )


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

    __table__ = step_table

    id: Mapped[int]
    step_id: Mapped[str]
    number: Mapped[int]
    href: Mapped[str]
    ui_href: Mapped[str]
    cleared: Mapped[bool]

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

    __table__ = file_table

    id: Mapped[int]
    security_tag: Mapped[str]
    storage_provider: Mapped[str]
    file_name: Mapped[str]
    file_storage_data: Mapped[str]
    file_type: Mapped[str | None]
    mimetype: Mapped[str | None]
    created_at: Mapped[datetime]
    task_id: Mapped[int | None]

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

        Raises:
            SchemaError: If the tables are missing or too old.
            DatabaseUnavailableError: If the database cannot be reached.
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

    __table__ = link_table

    id: Mapped[int]
    type: Mapped[str]
    href: Mapped[str]
    task_id: Mapped[int | None]

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

    __table__ = subscription_table

    id: Mapped[int]
    webhook_href: Mapped[str]
    task_href: Mapped[str]
    event_type: Mapped[str | None]
    task_id: Mapped[int | None]

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
        """Return whom to call when something happens to a task, each once.

        Args:
            task: The task or its id.
            event: What happened; subscriptions without a type match it too. None returns all.
        """
        query = select(cls.webhook_href, cls.task_href).where(cls.task_id == _task_id(task)).order_by(cls.id)
        if event is not None:
            query = query.where((cls.event_type == event) | cls.event_type.is_(None))
        found = (WebhookRef(row.webhook_href, row.task_href) for row in current_session().execute(query))
        # Somebody may have subscribed to this event and to all.
        return list(dict.fromkeys(found))

    @classmethod
    def get_by_task_and_subscriber(
        cls, task: int | ProcessingTask, webhook_href: str, event: str | EllipsisType | None = ...
    ) -> list[TaskUpdateSubscription]:
        """Return the subscriptions of one webhook to a task.

        Args:
            task: The task or its id.
            webhook_href: The URL that is called.
            event: Only those of this type; None means those without a type, `...` all.
        """
        query = select(TaskUpdateSubscription).where(is_of_subscriber(task, webhook_href, event))
        return list(current_session().scalars(query.order_by(cls.id)))


def is_of_subscriber(
    task: int | ProcessingTask, webhook_href: str, event: str | EllipsisType | None
) -> ColumnElement[bool]:
    """Return the condition for the subscriptions of one webhook to a task.

    Args:
        task: The task or its id; a number that is no id has none.
        webhook_href: The URL that is called.
        event: Only those of this type; None means those without a type, `...` all.
    """
    cls = TaskUpdateSubscription
    found = and_(cls.task_id == _task_id(task), cls.webhook_href == webhook_href)
    if event is ...:
        return found
    return and_(found, cls.event_type.is_(None) if event is None else cls.event_type == event)


checks.listen(Base.registry.mappers)
flushes.listen(
    ProcessingTask,
    Step,
    (Step, TaskFile, TaskLink, TaskUpdateSubscription),
    # Looked up at each call, since it is set later.
    lambda task_id: inside_execution_of(task_id),
)
bulk.listen(ProcessingTask, Step, (TaskFile, TaskLink), TaskUpdateSubscription)
events.listen(
    Step,
    (TaskFile, TaskLink),
    TaskUpdateSubscription,
    lambda: current_sessions().database.announce(),
)
