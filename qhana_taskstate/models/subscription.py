"""`TaskUpdateSubscription`: a webhook that wants to know of changes."""

from __future__ import annotations

from contextvars import ContextVar
from types import EllipsisType
from typing import TYPE_CHECKING, Final, NamedTuple

from sqlalchemy import ColumnElement, and_, select
from sqlalchemy.orm import Mapped, relationship

from ..database.sessions.current import current_session
from ..database.tables.runner import subscription_table
from .base import Base, Saved, id_of_task

if TYPE_CHECKING:
    from .task import ProcessingTask


#: Set while a host asks whom it has to tell of a change that our deliveries tell of: nobody.
told_by_deliveries: Final[ContextVar[bool]] = ContextVar("qhana_taskstate_told_by_deliveries", default=False)


class WebhookRef(NamedTuple):
    """Where to call, and what to name as the source.

    Attributes:
        webhook_href: The URL to call.
        task_href: The URL of the task, as the subscriber gave it.
    """

    webhook_href: str
    task_href: str


class TaskUpdateSubscription(Saved, Base):
    """Somebody who wants to be told of changes of a task.

    Attributes:
        id: Made by the database at the first flush.
        task: The task.
        webhook_href: The URL to call, at most 500 characters.
        task_href: The URL of the task as the subscriber knows it, at most 500 characters.
        event_type: One of `TaskEvent`, at most 64 characters; None for every event.
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
        if told_by_deliveries.get():
            return []
        query = select(cls.webhook_href, cls.task_href).where(cls.task_id == id_of_task(task)).order_by(cls.id)
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
    found = and_(cls.task_id == id_of_task(task), cls.webhook_href == webhook_href)
    if event is ...:
        return found
    return and_(found, cls.event_type.is_(None) if event is None else cls.event_type == event)
