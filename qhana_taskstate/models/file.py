"""`TaskFile`: a file that a task put out."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Final, Self

from sqlalchemy import select
from sqlalchemy.orm import Mapped, relationship

from ..database.sessions.current import current_session
from ..database.tables.runner import file_table
from .base import NOW, Base, Saved, id_of_task, made, read_anew

if TYPE_CHECKING:
    from .task import ProcessingTask


#: A file of this type is no result.
TEMPORARY_FILE_TYPE: Final = "temp-file"


class TaskFile(Saved, Base):
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
        created_at: datetime = NOW,
    ) -> None:
        self.security_tag = security_tag
        self.storage_provider = storage_provider
        self.file_name = file_name
        self.file_storage_data = file_storage_data
        self.file_type = file_type
        self.mimetype = mimetype
        self.created_at = made(created_at)
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
        return read_anew(cls, id_)

    @classmethod
    def get_task_result_files(cls, task: int | ProcessingTask) -> Sequence[TaskFile]:
        """Return the files of a task that are results: those with a type other than "temp-file", oldest first."""
        # NULL differs from everything in SQL, so a file without type is left out too.
        return list(
            current_session().scalars(
                select(TaskFile)
                .where(TaskFile.task_id == id_of_task(task), TaskFile.file_type != TEMPORARY_FILE_TYPE)
                .order_by(TaskFile.id)
            )
        )
