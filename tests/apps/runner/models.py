"""The models of the runner, as far as tables and names go. An application that took ours over runs none of them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, NamedTuple

from sqlalchemy import JSON, TIMESTAMP, Boolean, Float, ForeignKey, Integer, String, Text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from .core import DB

REGISTRY = DB.Model.registry
Moment = TIMESTAMP(timezone=True)


@REGISTRY.mapped_as_dataclass
class Step:
    """A step of a task."""

    __tablename__ = "Step"

    id: Mapped[int] = mapped_column(ForeignKey("ProcessingTask.id"), primary_key=True)
    step_id: Mapped[str] = mapped_column(String(500))
    number: Mapped[int] = mapped_column(Integer(), init=False, primary_key=True)
    href: Mapped[str] = mapped_column(String(500))
    ui_href: Mapped[str] = mapped_column(String(500))
    cleared: Mapped[bool] = mapped_column(Boolean(), default=False)


@REGISTRY.mapped_as_dataclass
class ProcessingTask:
    """A task."""

    __tablename__ = "ProcessingTask"

    id: Mapped[int] = mapped_column(Integer(), init=False, primary_key=True)
    task_name: Mapped[str] = mapped_column(String(500))
    started_at: Mapped[datetime] = mapped_column(Moment, default=datetime(2026, 1, 1, tzinfo=UTC))
    finished_at: Mapped[datetime | None] = mapped_column(Moment, default=None)
    parameters: Mapped[str] = mapped_column(Text(), default="")
    data: Mapped[Any] = mapped_column(JSON(), default_factory=dict)
    multi_step: Mapped[bool] = mapped_column(Boolean(), default=False)
    steps: Mapped[list[Step]] = relationship("Step", order_by="Step.number", default_factory=list)
    current_step: Mapped[int] = mapped_column(Integer(), default=-1)
    progress_value: Mapped[float | None] = mapped_column(Float(), default=None)
    progress_start: Mapped[float] = mapped_column(Float(), default=0)
    progress_target: Mapped[float] = mapped_column(Float(), default=100)
    progress_unit: Mapped[str] = mapped_column(String(100), default="%")
    task_status: Mapped[str | None] = mapped_column(String(100), default=None)
    task_log: Mapped[str] = mapped_column(Text(), default="")
    outputs: Mapped[list[TaskFile]] = relationship("TaskFile", back_populates="task", default_factory=list)
    links: Mapped[list[TaskLink]] = relationship("TaskLink", back_populates="task", default_factory=list)
    subscriptions: Mapped[list[TaskUpdateSubscription]] = relationship(
        "TaskUpdateSubscription", back_populates="task", default_factory=list
    )


@REGISTRY.mapped_as_dataclass
class TaskLink:
    """A link that a task shows."""

    __tablename__ = "TaskLink"

    id: Mapped[int] = mapped_column(Integer(), primary_key=True, init=False)
    task: Mapped[ProcessingTask] = relationship("ProcessingTask", back_populates="links")
    type: Mapped[str] = mapped_column(String(64))
    href: Mapped[str] = mapped_column(String(500))
    task_id: Mapped[int | None] = mapped_column(Integer(), ForeignKey(ProcessingTask.id), default=None, init=False)


class WebhookRef(NamedTuple):
    """Where to call, and for which task."""

    webhook_href: str
    task_href: str


@REGISTRY.mapped_as_dataclass
class TaskUpdateSubscription:
    """Who wants to be told."""

    __tablename__ = "TaskUpdateSubscription"

    id: Mapped[int] = mapped_column(Integer(), primary_key=True, init=False)
    task: Mapped[ProcessingTask] = relationship("ProcessingTask", back_populates="subscriptions")
    webhook_href: Mapped[str] = mapped_column(String(500))
    task_href: Mapped[str] = mapped_column(String(500))
    event_type: Mapped[str | None] = mapped_column(String(64), default=None)
    task_id: Mapped[int | None] = mapped_column(Integer(), ForeignKey(ProcessingTask.id), default=None, init=False)


@REGISTRY.mapped_as_dataclass
class TaskFile:
    """An output of a task."""

    __tablename__ = "TaskFile"

    id: Mapped[int] = mapped_column(Integer(), primary_key=True, init=False)
    task: Mapped[ProcessingTask] = relationship("ProcessingTask", back_populates="outputs")
    security_tag: Mapped[str] = mapped_column(String(64))
    storage_provider: Mapped[str] = mapped_column(String(64))
    file_name: Mapped[str] = mapped_column(String(500), index=True)
    file_storage_data: Mapped[str] = mapped_column(Text())
    file_type: Mapped[str | None] = mapped_column(String(255))
    mimetype: Mapped[str | None] = mapped_column(String(255), default=None)
    created_at: Mapped[datetime] = mapped_column(Moment, default=datetime(2026, 1, 1, tzinfo=UTC))
    task_id: Mapped[int | None] = mapped_column(Integer(), ForeignKey(ProcessingTask.id), default=None, init=False)


@REGISTRY.mapped_as_dataclass
class Note:
    """A model of the host's own, which names the models above as text."""

    __tablename__ = "Note"

    id: Mapped[int] = mapped_column(Integer(), primary_key=True, init=False)
    text: Mapped[str] = mapped_column(String(100))
    task: Mapped[ProcessingTask | None] = relationship("ProcessingTask", default=None)
    task_id: Mapped[int | None] = mapped_column(ForeignKey("ProcessingTask.id"), default=None, init=False)
