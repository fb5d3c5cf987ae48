"""The classes in the session of a host application, which expires everything at each commit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask import Flask
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from qhana_taskstate.database.engine import Database
from qhana_taskstate.database.sessions.scopes import Sessions
from qhana_taskstate.models.link import TaskLink
from qhana_taskstate.models.task import ProcessingTask


@pytest.fixture(params=["scoped_session", "flask_sqlalchemy"])
def host(request: pytest.FixtureRequest, database: Database, taskstate_database_url: str) -> Iterator[Any]:
    """The session of a host."""
    if request.param == "scoped_session":
        session: Any = scoped_session(sessionmaker(database.engine))
        yield session
        session.remove()
        return
    app = Flask("host")
    app.config["SQLALCHEMY_DATABASE_URI"] = taskstate_database_url
    db = SQLAlchemy(app)
    with app.app_context():
        yield db.session
        db.session.remove()
        db.engine.dispose()


def test_all_of_it_works_there(host: Any, database: Database, install_sessions: Callable[..., Sessions]) -> None:
    install_sessions(database, host)
    task = ProcessingTask("clustering", data={"rows": []})
    task.save(commit=True)
    rows = task.data["rows"]
    host.commit()

    rows.append(1)
    task.add_task_log_entry("one", commit=True)
    task.task_log += "\ntwo"
    host.add(TaskLink(task, "type", "href"))
    task.add_next_step("href", "ui", "k", commit=True)
    assert task.clear_previous_step(commit=True)
    rows.append(2)
    task.progress_value = 1
    task.task_status = "SUCCESS"
    host.commit()

    with Session(database.engine) as session:
        read = session.get_one(ProcessingTask, task.id)
        assert (read.status, read.data, read.task_log) == ("SUCCESS", {"rows": [1, 2]}, "one\ntwo")
        assert [step.cleared for step in read.steps] == [True]
        assert [link.type for link in read.links] == ["type"]
        assert read.progress_value == 100
    assert task.data["rows"] is rows


def test_what_another_session_changed_is_seen_after_a_commit(
    host: Any, database: Database, install_sessions: Callable[..., Sessions]
) -> None:
    install_sessions(database, host)
    task = ProcessingTask("clustering", data={"mine": 0})
    task.save(commit=True)
    data = task.data
    host.commit()
    with Session(database.engine) as session:
        session.get_one(ProcessingTask, task.id).data["theirs"] = 1
        session.commit()

    data["mine"] = 1
    host.commit()

    read = ProcessingTask.get_by_id(task.id)
    assert read is task
    assert read.data == {"mine": 1, "theirs": 1}
    assert read.data is data
