"""Lets the steps that a session holds show that they were cleared."""

from __future__ import annotations

from sqlalchemy.orm import Session
from sqlalchemy.orm.attributes import set_committed_value


def show_cleared(session: Session, task_id: int, step_class: type[object]) -> None:
    """Let the step objects of a session show that all steps of a task are cleared."""
    for step in list(session.identity_map.values()):
        if isinstance(step, step_class) and step.__dict__.get("id") == task_id and "cleared" in step.__dict__:
            set_committed_value(step, "cleared", True)
