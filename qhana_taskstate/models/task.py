"""`ProcessingTask`: one logical job."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any, ClassVar, Self, cast

from sqlalchemy import ColumnElement, inspect
from sqlalchemy.ext.hybrid import hybrid_property
from sqlalchemy.ext.orderinglist import OrderingList, ordering_list
from sqlalchemy.orm import Mapped, deferred, relationship
from sqlalchemy.orm.attributes import flag_dirty

from ..database.tables.runner import task_table
from ..errors import TaskFinishedError
from ..states import UNKNOWN, TaskStatus
from ..store.log import entries
from .base import NEW_DICT, NEW_LIST, NOW, Base, Saved, made, read_anew
from .changes.pending_log import PendingLog
from .file import TaskFile
from .link import TaskLink
from .saved_steps import add_step, assert_cleared, clear_step
from .step import Step
from .subscription import TaskUpdateSubscription


class ProcessingTask(Saved, Base):
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
        started_at: datetime = NOW,
        finished_at: datetime | None = None,
        parameters: str = "",
        data: Any = NEW_DICT,
        multi_step: bool = False,
        steps: Iterable[Step] = NEW_LIST,
        current_step: int = -1,
        progress_value: float | None = None,
        progress_start: float = 0,
        progress_target: float = 100,
        progress_unit: str = "%",
        task_status: str | None = None,
        task_log: str = "",
        outputs: Iterable[TaskFile] = NEW_LIST,
        links: Iterable[TaskLink] = NEW_LIST,
        subscriptions: Iterable[TaskUpdateSubscription] = NEW_LIST,
    ) -> None:
        self.task_name = task_name
        self.started_at = made(started_at)
        self.finished_at = finished_at
        self.parameters = parameters
        self.data = made(data)
        self.multi_step = multi_step
        self.steps.extend(made(steps))
        self.current_step = current_step
        self.progress_value = progress_value
        self.progress_start = progress_start
        self.progress_target = progress_target
        self.progress_unit = progress_unit
        self.task_status = task_status
        self.outputs.extend(made(outputs))
        self.links.extend(made(links))
        self.subscriptions.extend(made(subscriptions))
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
        return read_anew(cls, id_)

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
            return log.show(entries.read(self._session(), self.id))
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
            add_step(self, self._session(), step)
        else:
            assert_cleared(self.steps[-1] if self.steps else None)
            if self.is_finished:
                raise TaskFinishedError(self.id, self.status)
            step.number = len(self.steps)
            self.steps.append(step)
            self.multi_step = True
            self.current_step = step.number
        if commit:
            self.save(commit=True)

    def clear_previous_step(self, commit: bool = False) -> bool:
        """Note that the newest step got its input. It is written at once, in the transaction of the session.

        Args:
            commit: Also commit the session.

        Returns:
            Whether this very call cleared it: of several callers at once, only one is told so. False without a
            step.
        """
        if inspect(self).persistent:
            cleared = clear_step(self, self._session())
        else:
            newest = self.steps[-1] if self.steps else None
            cleared = newest is not None and not newest.cleared
            if newest is not None and cleared:
                newest.cleared = True
        if commit:
            self.save(commit=True)
        return cleared


# Past the declarative class, which would map what it is given.
type.__setattr__(ProcessingTask, "_log_column", ProcessingTask.__dict__["task_log"])


type.__setattr__(ProcessingTask, "task_log", ProcessingTask.__dict__["_whole_log"])
