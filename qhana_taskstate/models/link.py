"""`TaskLink`: a link from a task to something else."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy.orm import Mapped, relationship

from ..database.tables.runner import link_table
from .base import Base

if TYPE_CHECKING:
    from .task import ProcessingTask


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
