"""`Step`: a point where a task waits for a person's input."""

from __future__ import annotations

from sqlalchemy.orm import Mapped

from ..database.tables.runner import step_table
from .base import Base


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
