"""Which events a change raises: of a session, of a statement, of the recorder."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import delete, event, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from qhana_taskstate import TaskState, registry
from qhana_taskstate import facts as facts_module
from qhana_taskstate.database.tables.deliveries import change_table
from qhana_taskstate.database.tables.runner import subscription_table
from qhana_taskstate.facts import ExecutionKey, Progress, TaskRef
from qhana_taskstate.models.file import TaskFile
from qhana_taskstate.models.link import TaskLink
from qhana_taskstate.models.step import Step
from qhana_taskstate.models.subscription import TaskUpdateSubscription
from qhana_taskstate.models.task import ProcessingTask
from qhana_taskstate.states import ExecutionState, TaskStatus
from qhana_taskstate.store import reports
from qhana_taskstate.store.closing import close as closing_close
from qhana_taskstate.store.closing import holds, losses
from qhana_taskstate.store.executions import begin, heartbeats, lookup
from qhana_taskstate.store.task import jobs
from qhana_taskstate.store.task_end import outcome as ending_outcome
from qhana_taskstate.store.task_end import task_row
from qhana_taskstate.store.task_end.end import TaskFinishedWarning
from tests.apps.jobs import say
from tests.parts.webhooks.conftest import MakeState
from tests.parts.webhooks.owed import NOBODY, TASK, subscribed_task, take_owed
from tests.statements import statements

pytestmark = pytest.mark.mariadb

DETAILS, STATUS, STEPS = "details", "status", "steps"
END = [DETAILS, STATUS]
END_AT_STEP = [DETAILS, STATUS, STEPS]


@dataclass(frozen=True)
class Site:
    """A task with a file, a link and a subscriber to everything, and the session that changes it."""

    state: TaskState
    task: ProcessingTask

    @property
    def session(self) -> Session:
        return self.state.session

    @property
    def id(self) -> int:
        return self.task.id

    def file(self, name: str = "a") -> None:
        TaskFile(self.task, "tag", "local_filesystem", name, "/a", "entity/list", "text/csv").save()

    def link(self, href: str = "http://x") -> None:
        self.session.add(TaskLink(self.task, "of", href))

    def step(self) -> None:
        self.task.add_next_step("http://h", "http://u", "k")

    def commit(self) -> None:
        self.session.commit()

    def owed(self) -> list[str]:
        return take_owed(self.state, self.id)


@pytest.fixture
def site(state: TaskState) -> Site:
    """See `Site`; nothing is owed yet."""
    task = subscribed_task(state)
    made = Site(state, task)
    task.data = {"rows": [{"n": 1}]}
    made.file("first")
    made.link("http://first")
    made.commit()
    made.owed()
    return made


def _set(**values: Any) -> Callable[[Site], None]:
    def change(site: Site) -> None:
        for key, value in values.items():
            setattr(site.task, key, value)

    return change


def _nested_data(site: Site) -> None:
    site.task.data["rows"][0]["n"] = 2


def _nested_data_twice(site: Site) -> None:
    site.task.data["rows"].append(1)
    site.session.flush()
    site.task.data["rows"].append(2)


def _log(site: Site) -> None:
    site.task.task_log += "more"


def _log_entry(site: Site) -> None:
    site.task.add_task_log_entry("entry")


def _answered_step(site: Site) -> None:
    site.step()
    site.task.clear_previous_step()


def _several(site: Site) -> None:
    site.task.data["k"] = 1
    site.task.add_task_log_entry("entry")
    site.task.progress_value = 3
    site.file()
    site.step()


def _renamed_file(site: Site) -> None:
    site.task.outputs[0].file_name = "other"


def _deleted_file(site: Site) -> None:
    site.session.delete(site.task.outputs[0])


def _removed_file(site: Site) -> None:
    site.task.outputs.clear()


def _changed_link(site: Site) -> None:
    site.task.links[0].href = "http://other"


def _deleted_link(site: Site) -> None:
    site.session.delete(site.task.links[0])


UNIT_OF_WORK: list[tuple[str, Callable[[Site], object], list[str]]] = [
    ("data inside", _nested_data, [DETAILS]),
    ("data inside, twice", _nested_data_twice, [DETAILS]),
    ("data assigned", _set(data=[1]), [DETAILS]),
    ("log added to", _log, [DETAILS]),
    ("log entry", _log_entry, [DETAILS]),
    ("progress", _set(progress_value=5), [DETAILS]),
    ("target", _set(progress_target=7), [DETAILS]),
    ("unit", _set(progress_unit="rows"), [DETAILS]),
    ("name and parameters", _set(task_name="other", parameters="{}"), []),
    ("nothing new", _set(progress_value=None, progress_unit="%"), []),
    ("status PENDING", _set(task_status="PENDING"), []),
    ("status SUCCESS", _set(task_status="SUCCESS"), END),
    ("status FAILURE", _set(task_status="FAILURE"), END),
    ("end without a word", _set(finished_at=datetime(2026, 11, 24, tzinfo=UTC)), END),
    ("status and end", _set(task_status="ERROR", finished_at=datetime(2026, 11, 24, tzinfo=UTC)), END),
    ("step", Site.step, [STEPS]),
    ("step added and cleared", _answered_step, [STEPS]),
    ("file", Site.file, [DETAILS]),
    ("file renamed", _renamed_file, [DETAILS]),
    ("file deleted", _deleted_file, [DETAILS]),
    ("file taken away", _removed_file, [DETAILS]),
    ("link", Site.link, [DETAILS]),
    ("link changed", _changed_link, [DETAILS]),
    ("link deleted", _deleted_link, [DETAILS]),
    ("several things", _several, [DETAILS, STEPS]),
]


@pytest.mark.parametrize(("change", "expected"), [case[1:] for case in UNIT_OF_WORK], ids=[c[0] for c in UNIT_OF_WORK])
def test_commit_owes_each_event_once(site: Site, change: Callable[[Site], object], expected: list[str]) -> None:
    change(site)
    site.session.flush()
    site.session.rollback()
    site.task.task_name = "rolled back"
    site.commit()
    assert site.owed() == []
    change(site)
    site.session.flush()
    assert not _visible(site), "told before the commit"
    site.commit()
    assert site.owed() == expected
    site.commit()
    assert site.owed() == []


def _visible(site: Site) -> bool:
    with site.state.database.reading() as connection:
        return (
            connection.execute(select(change_table.c.id).where(change_table.c.task_id == site.id)).first() is not None
        )


def _with_step(site: Site) -> Site:
    site.step()
    site.commit()
    assert site.owed() == [STEPS]
    return site


def test_end_by_hand_at_an_open_step_is_told_as_all_three(site: Site) -> None:
    _with_step(site)
    site.task.task_status = "SUCCESS"
    site.commit()
    assert site.owed() == END_AT_STEP


def test_step_is_cleared_once(site: Site) -> None:
    _with_step(site)
    assert site.task.clear_previous_step(commit=True)
    assert site.owed() == [STEPS]
    assert not site.task.clear_previous_step(commit=True)
    assert site.owed() == []


def test_cleared_set_by_hand_is_told_once(site: Site) -> None:
    _with_step(site)
    site.task.steps[-1].cleared = True
    site.commit()
    assert site.owed() == [STEPS]
    site.task.steps[-1].cleared = True
    site.commit()
    assert site.owed() == []


def test_new_word_for_a_finished_task_is_not_told(site: Site) -> None:
    site.task.task_status = "ERROR"
    site.commit()
    site.owed()
    with pytest.warns(TaskFinishedWarning):
        site.task.task_status = "SUCCESS"
    site.commit()
    assert site.owed() == []


def test_output_of_a_finished_task_is_told(site: Site) -> None:
    site.task.task_status = "ERROR"
    site.commit()
    site.owed()
    site.file("late")
    site.commit()
    assert site.owed() == [DETAILS]


def test_file_that_moves_changes_both_tasks(site: Site) -> None:
    other = subscribed_task(site.state)
    site.task.outputs[0].task = other
    site.commit()
    assert (site.owed(), take_owed(site.state, other.id)) == ([DETAILS], [DETAILS])


def test_two_tasks_of_one_commit_are_both_told(site: Site) -> None:
    other = subscribed_task(site.state)
    site.task.data["k"] = 1
    other.task_status = "SUCCESS"
    site.commit()
    assert (site.owed(), take_owed(site.state, other.id)) == ([DETAILS], END)


def test_deleted_task_is_no_fault(site: Site) -> None:
    site.task.data["k"] = 1
    site.session.flush()
    site.session.delete(site.task)
    site.commit()


# Statements that pass the unit of work by


STATEMENTS: list[tuple[str, Callable[[Site], object], list[str]]] = [
    ("progress", lambda s: s.session.execute(_task(s).values(progress_value=4)), [DETAILS]),
    ("data", lambda s: s.session.execute(_task(s).values({ProcessingTask.data: {"a": 1}})), [DETAILS]),
    ("log", lambda s: s.session.execute(_task(s).values(task_log="all")), [DETAILS]),
    ("name", lambda s: s.session.execute(_task(s).values(task_name="other")), []),
    ("status", lambda s: s.session.execute(_task(s).values(task_status="SUCCESS")), END),
    ("end", lambda s: s.session.execute(_task(s).values(finished_at=datetime(2026, 1, 1, tzinfo=UTC))), END),
    ("status PENDING", lambda s: s.session.execute(_task(s).values(task_status="PENDING")), []),
    ("nobody's", lambda s: s.session.execute(_task(s).where(ProcessingTask.id < 0).values(progress_value=4)), []),
    (
        "status of many",
        lambda s: s.session.execute(update(ProcessingTask), [{"id": s.id, "task_status": "ERROR"}]),
        END,
    ),
    (
        "progress of many",
        lambda s: s.session.execute(update(ProcessingTask), [{"id": s.id, "progress_value": 9.0}]),
        [DETAILS],
    ),
    ("file", lambda s: s.session.execute(insert(TaskFile).values(**_file(s))), [DETAILS]),
    ("files", lambda s: s.session.execute(insert(TaskFile), [_file(s), _file(s)]), [DETAILS]),
    ("files in one", lambda s: s.session.execute(insert(TaskFile).values([_file(s), _file(s)])), [DETAILS]),
    ("file renamed", lambda s: s.session.execute(_of(update(TaskFile), TaskFile, s).values(file_name="b")), [DETAILS]),
    ("file deleted", lambda s: s.session.execute(_of(delete(TaskFile), TaskFile, s)), [DETAILS]),
    (
        "link",
        lambda s: s.session.execute(insert(TaskLink).values(task_id=s.id, type="t", href="http://x")),
        [DETAILS],
    ),
    ("link changed", lambda s: s.session.execute(_of(update(TaskLink), TaskLink, s).values(type="b")), [DETAILS]),
    ("link deleted", lambda s: s.session.execute(_of(delete(TaskLink), TaskLink, s)), [DETAILS]),
    ("step", lambda s: s.session.execute(insert(Step).values(**_step(s))), [STEPS]),
    ("by query", lambda s: s.session.query(TaskFile).filter_by(task_id=s.id).delete(), [DETAILS]),
]


def _task(site: Site) -> Any:
    return update(ProcessingTask).where(ProcessingTask.id == site.id)


def _of(statement: Any, model: Any, site: Site) -> Any:
    return statement.where(model.task_id == site.id)


def _file(site: Site) -> dict[str, Any]:
    return {
        "task_id": site.id,
        "security_tag": "t",
        "storage_provider": "local_filesystem",
        "file_name": "x",
        "file_storage_data": "/x",
    }


def _step(site: Site) -> dict[str, Any]:
    return {"id": site.id, "number": 0, "step_id": "k", "href": "h", "ui_href": "u", "cleared": False}


@pytest.mark.parametrize(("change", "expected"), [case[1:] for case in STATEMENTS], ids=[c[0] for c in STATEMENTS])
def test_statement_owes_each_event_once(site: Site, change: Callable[[Site], object], expected: list[str]) -> None:
    change(site)
    site.session.rollback()
    site.session.execute(_task(site).values(task_name="rolled back"))
    site.commit()
    assert site.owed() == []
    change(site)
    site.commit()
    assert site.owed() == expected
    site.session.execute(_task(site).values(task_name="last"))
    site.commit()
    assert site.owed() == []


def test_statements_at_an_open_step(site: Site) -> None:
    _with_step(site)
    site.session.execute(update(Step).where(Step.id == site.id).values(cleared=True))
    site.commit()
    assert site.owed() == [STEPS]
    site.step()
    site.commit()
    site.owed()
    site.session.execute(_task(site).values(task_status="SUCCESS"))
    site.commit()
    assert site.owed() == END_AT_STEP
    site.session.execute(_task(site).values(task_status="ERROR"))
    site.commit()
    assert site.owed() == []


def test_statement_in_a_hosts_own_handler_before_the_commit_is_told(site: Site) -> None:
    def last(session: Session) -> None:
        session.execute(update(ProcessingTask).where(ProcessingTask.id == site.id).values(progress_value=77))

    event.listen(site.session, "before_commit", last)
    site.task.task_name = "x"
    site.commit()
    event.remove(site.session, "before_commit", last)
    assert site.owed() == [DETAILS]


def test_change_in_a_hosts_own_handler_before_the_commit_is_told(site: Site) -> None:
    def last(session: Session) -> None:
        site.task.progress_value = 77

    event.listen(site.session, "before_commit", last)
    site.task.task_name = "x"
    site.commit()
    event.remove(site.session, "before_commit", last)
    assert site.owed() == [DETAILS]


# Transactions


def test_rolled_back_savepoint_tells_nobody(site: Site) -> None:
    with pytest.raises(KeyError), site.session.begin_nested():
        site.task.progress_value = 3
        site.session.flush()
        raise KeyError
    site.task.task_name = "x"
    site.commit()
    assert site.owed() == []


def test_released_savepoint_tells(site: Site) -> None:
    with site.session.begin_nested():
        site.task.progress_value = 3
    assert not _visible(site)
    site.commit()
    assert site.owed() == [DETAILS]


def test_released_savepoint_of_a_rolled_back_transaction_tells_nobody(site: Site) -> None:
    with site.session.begin_nested():
        site.task.progress_value = 3
    site.session.rollback()
    site.session.execute(_task(site).values(task_name="x"))
    site.commit()
    assert site.session.get_one(ProcessingTask, site.id, populate_existing=True).progress_value is None
    assert site.owed() == []


def test_released_savepoint_inside_a_rolled_back_one_tells_nobody(site: Site) -> None:
    with pytest.raises(KeyError), site.session.begin_nested():
        with site.session.begin_nested():
            site.task.progress_value = 3
        raise KeyError
    site.commit()
    assert site.owed() == []


def test_commit_with_open_savepoints_tells(site: Site) -> None:
    site.session.begin_nested()
    site.task.progress_value = 3
    site.session.begin_nested()
    site.step()
    site.commit()
    assert site.owed() == [DETAILS, STEPS]


def test_flush_that_fails_in_a_savepoint_takes_nothing_else_back(site: Site) -> None:
    site.step()
    with pytest.raises(IntegrityError), site.session.begin_nested():
        site.task.progress_value = 5
        site.session.flush()
        site.session.execute(insert(Step).values(**_step(site)))
    assert not _visible(site)
    site.commit()
    assert site.owed() == [STEPS]


def test_unit_of_work_that_fails_in_a_savepoint_takes_nothing_else_back(site: Site) -> None:
    site.step()
    duplicate = Step(site.id, "again", "h", "u")
    duplicate.number = 0
    with site.session.no_autoflush, warnings.catch_warnings():
        # The identity is in the session already, as SQLAlchemy remarks.
        warnings.simplefilter("ignore")
        with pytest.raises(IntegrityError), site.session.begin_nested():
            site.session.add(duplicate)
            site.session.flush()
    site.commit()
    assert site.owed() == [STEPS]


def test_closed_session_tells_nobody_what_it_did_not_commit(site: Site) -> None:
    site.task.progress_value = 3
    site.session.flush()
    site.session.close()
    again = site.session.get_one(ProcessingTask, site.id)
    again.task_name = "x"
    site.commit()
    assert site.owed() == []


def test_begin_block_tells(site: Site) -> None:
    session = Session(site.state.database.engine)
    with session.begin():
        session.get_one(ProcessingTask, site.id).progress_value = 4
    assert site.owed() == [DETAILS]
    with pytest.raises(KeyError), session.begin():
        session.get_one(ProcessingTask, site.id).progress_value = 5
        session.flush()
        raise KeyError
    session.close()
    assert site.owed() == []


def test_subscription_made_between_flush_and_commit_is_told(state: TaskState) -> None:
    task = state.start(say.s())
    task.progress_value = 3
    state.session.flush()
    subscribing = threading.Thread(target=_subscribe, args=(state, task.id))
    subscribing.start()
    if state.database.dialect == "postgresql":
        # Elsewhere a row that refers to another waits for a change of that one.
        subscribing.join(10)
        assert not subscribing.is_alive()
    state.session.commit()
    subscribing.join(10)
    assert not subscribing.is_alive()
    if state.database.dialect == "postgresql":
        assert take_owed(state, task.id) == [DETAILS]
    task.progress_value = 4
    state.session.commit()
    assert take_owed(state, task.id) == [DETAILS]


def _subscribe(state: TaskState, task_id: int) -> None:
    state.subscribe(task_id, NOBODY, TASK, event="details")
    state.session.close()


def test_task_without_subscribers_owes_nothing(state: TaskState) -> None:
    task = ProcessingTask("alone")
    task.save(commit=True)
    task.progress_value = 1
    task.task_status = "SUCCESS"
    state.session.commit()
    assert take_owed(state, task.id) == []


@pytest.mark.parametrize("subscribed", [None, "status", "steps", "details", "unheard-of", ""])
def test_subscription_to_one_event_is_owed_no_other(state: TaskState, subscribed: str | None) -> None:
    task = ProcessingTask("old")
    task.save(commit=True)
    # As another program writes it.
    state.session.execute(
        insert(subscription_table).values(task_id=task.id, webhook_href=NOBODY, task_href=TASK, event_type=subscribed)
    )
    task.add_next_step("http://h", "http://u", "k")
    task.task_status = "ERROR"
    state.session.commit()
    expected = END_AT_STEP if subscribed is None else [name for name in END_AT_STEP if name == subscribed]
    assert take_owed(state, task.id) == expected


def test_task_that_is_new_in_the_commit_tells_its_first_subscriber(state: TaskState) -> None:
    task = ProcessingTask("new")
    TaskUpdateSubscription(task, NOBODY, TASK).save()
    TaskFile(task, "t", "local_filesystem", "f", "/f", None).save()
    state.session.commit()
    assert take_owed(state, task.id) == [DETAILS]

    ended = ProcessingTask("ended", task_status="SUCCESS")
    TaskUpdateSubscription(ended, NOBODY, TASK).save()
    state.session.commit()
    assert take_owed(state, ended.id) == [STATUS]


@pytest.mark.parametrize("way", ["object", "statement", "statement of many", "subscribe"])
@pytest.mark.parametrize(("wanted", "expected"), [(None, [STATUS]), ("status", [STATUS]), ("details", [])])
def test_finished_task_owes_a_new_subscription_one_status(
    state: TaskState, way: str, wanted: str | None, expected: list[str]
) -> None:
    task = ProcessingTask("ended", task_status="SUCCESS")
    task.save(commit=True)
    row = {"task_id": task.id, "webhook_href": NOBODY, "task_href": TASK, "event_type": wanted}
    if way == "object":
        TaskUpdateSubscription(task, NOBODY, TASK, wanted).save(commit=True)
    elif way == "subscribe":
        state.subscribe(task, NOBODY, TASK, wanted)
        state.subscribe(task, NOBODY, TASK, wanted)
    else:
        session = state.session
        session.execute(insert(TaskUpdateSubscription), [row] if way == "statement of many" else row)
        session.commit()
    assert take_owed(state, task.id) == expected


@pytest.mark.parametrize("way", ["statement", "statement of many"])
def test_new_subscription_with_the_id_of_a_removed_one_is_owed_its_status(state: TaskState, way: str) -> None:
    task = subscribed_task(state)
    task.task_status = "SUCCESS"
    state.session.commit()
    state.deliverer.run()
    assert state.unsubscribe(task, NOBODY) == 1
    row = {"task_id": task.id, "webhook_href": NOBODY, "task_href": TASK, "event_type": None}
    state.session.execute(insert(TaskUpdateSubscription), [row] if way == "statement of many" else row)
    state.session.commit()

    assert take_owed(state, task.id) == [STATUS]


def test_later_subscriber_of_a_finished_task_changes_nothing_for_the_first(state: TaskState) -> None:
    task = subscribed_task(state)
    task.task_status = "SUCCESS"
    state.session.commit()
    assert take_owed(state, task.id) == END
    state.deliverer.run()
    state.subscribe(task, f"{NOBODY}/second", TASK)
    assert len(take_owed(state, task.id)) <= 2


# What the recorder changes


class Running:
    """A task that was started, and the facts about its executions that a worker would bring."""

    def __init__(self, state: TaskState, members: int = 1, **options: Any) -> None:
        self.state = state
        self.task = state.start(say.s(), webhook_href=NOBODY, task_href=TASK, **options)
        with state.database.reading() as connection:
            job = jobs.find_job(connection, self.task.id)
        assert job is not None
        self.ref: TaskRef = job.ref
        with state.database.reading() as connection:
            (celery_id,) = lookup.open_celery_ids(connection, self.task.id)
        self.key = ExecutionKey(celery_id)
        self.others = [ExecutionKey(f"member-{number}-of-{self.task.id}") for number in range(1, members)]
        for key in (self.key, *self.others):
            self.write(begin.begin, key, name="say", runner=begin.Runner(worker="w", host="h", pid=1, pid_started=None))
        self.owed()

    def write(self, function: Any, *arguments: Any, **options: Any) -> Any:
        return self.state.recorder.write(lambda connection: function(connection, self.ref, *arguments, **options))

    def report(self, **facts: Any) -> None:
        self.write(reports.report, self.key, deadline_seconds=86400, **facts)

    def close(self, key: ExecutionKey | None = None, state: str = "SUCCESS", **facts: Any) -> ending_outcome.Outcome:
        closing = closing_close.Closing(key=key or self.key, name="say", state=ExecutionState(state), **facts)
        outcome: ending_outcome.Outcome = self.write(closing_close.close, closing)
        return outcome

    def owed(self) -> list[str]:
        return take_owed(self.state, self.task.id)


def test_start_tells_nothing_and_its_end_status_and_details(state: TaskState) -> None:
    running = Running(state)
    assert running.owed() == []
    running.close(lines=["said"])
    assert running.owed() == END
    running.close(lines=["late"])
    assert running.owed() == [DETAILS]


def test_failure_is_told_once_whatever_else_fails(state: TaskState) -> None:
    running = Running(state, members=3)
    running.close(state="FAILURE", failure=facts_module.Failure(type="E", message="m"))
    assert running.owed() == END
    running.close(running.others[0], state="FAILURE", failure=facts_module.Failure(type="E", message="m"))
    running.close(running.others[1])
    assert running.owed() == []


def test_close_of_a_member_without_reports_tells_nothing(state: TaskState) -> None:
    running = Running(state, members=2)
    running.close()
    assert running.owed() == []
    running.close(running.others[0])
    assert running.owed() == END


def test_reports_are_details(state: TaskState) -> None:
    running = Running(state)
    running.report(lines=["one"])
    assert running.owed() == [DETAILS]
    running.report(progress=Progress(1, 0, 10, "rows"))
    assert running.owed() == [DETAILS]
    running.report(lines=["two"], progress=Progress(2, 0, 10, "rows"))
    assert running.owed() == [DETAILS]
    running.report()
    assert running.owed() == []


def test_progress_of_a_canvas_is_details(state: TaskState) -> None:
    running = Running(state, members=3)
    running.close()
    state.recorder.write(lambda connection: reports.show_canvas(connection, running.task.id))
    assert running.owed() == [DETAILS]


def test_end_at_an_open_step(state: TaskState) -> None:
    running = Running(state, members=2)
    running.task.add_next_step("http://h", "http://u", "k", commit=True)
    assert running.owed() == [STEPS]
    running.close()
    assert running.owed() == []
    running.close(running.others[0], state="FAILURE", failure=facts_module.Failure(type="E", message="m"))
    assert running.owed() == END_AT_STEP


def test_cancel_and_finish_tell_the_end_once(state: TaskState) -> None:
    running = Running(state)
    assert state.cancel(running.task)
    assert running.owed() == END
    assert not state.cancel(running.task)
    assert not state.finish(running.task)
    assert running.owed() == []

    open_ended = Running(state, finishes=False)
    open_ended.close()
    assert open_ended.owed() == []
    open_ended.task.add_next_step("http://h", "http://u", "k", commit=True)
    open_ended.owed()
    assert state.finish(open_ended.task, log="done")
    assert open_ended.owed() == END_AT_STEP


def test_task_that_nobody_gave_us_is_told_when_it_is_cancelled(state: TaskState) -> None:
    task = subscribed_task(state)
    assert state.cancel(task)
    assert take_owed(state, task.id) == END


def test_answer_is_told_as_steps(state: TaskState) -> None:
    running = Running(state)
    running.task.add_next_step("http://h", "http://u", "k", commit=True)
    running.close()
    running.owed()
    state.start(say.s(), task=running.task.id, answers="k")
    assert running.owed() == [STEPS]


def test_release_of_an_empty_hold_is_told_as_the_end(state: TaskState) -> None:
    task = subscribed_task(state)

    def submit(connection: Any) -> tuple[TaskRef, str]:
        ref = jobs.take_up(connection, task.id).ref
        return ref, holds.hold(connection, task.id)

    ref, hold_id = state.recorder.write(submit)
    state.recorder.write(lambda connection: holds.release(connection, ref, hold_id, [], deadline_seconds=86400))
    assert take_owed(state, task.id) == END


def test_lost_execution_is_told_as_the_end(state: TaskState) -> None:
    running = Running(state)
    with state.database.reading() as connection:
        (lease,) = [lease for lease in heartbeats.running(connection) if lease.ref == running.ref]
    failure = facts_module.Failure(type="WorkerLostError", message="gone")
    state.recorder.write(lambda connection: losses.settle_lost(connection, lease, failure))
    assert running.owed() == END
    state.recorder.write(lambda connection: losses.settle_lost(connection, lease, failure))
    assert running.owed() == []


@contextmanager
def _held(state: TaskState, task_id: int, **values: Any) -> Iterator[Session]:
    """Hold the row of a task, as a plugin does that has flushed and not committed."""
    session = Session(state.database.engine)
    session.execute(update(ProcessingTask).where(ProcessingTask.id == task_id).values(**values))
    try:
        yield session
    finally:
        session.close()


@pytest.mark.databases("postgresql", "mariadb")
def test_end_that_a_plugin_delays_is_told_when_it_is_shown(state: TaskState) -> None:
    running = Running(state)
    with _held(state, running.task.id, task_name="held"):
        assert not running.close().shown
        assert running.owed() == []
        assert state.database.read(task_row.uncopied)
    state.upkeep()
    assert running.owed() == END
    state.upkeep()
    assert running.owed() == []


@pytest.mark.databases("postgresql", "mariadb")
def test_log_beside_an_end_that_a_plugin_delays_is_told_at_once(state: TaskState) -> None:
    running = Running(state)
    with _held(state, running.task.id, task_name="held"):
        running.close(lines=["said"])
        assert running.owed() == [DETAILS]
    state.upkeep()
    assert running.owed() == END


@pytest.mark.databases("postgresql", "mariadb")
def test_end_by_hand_that_comes_with_the_delayed_end_is_told_once(state: TaskState) -> None:
    running = Running(state)
    session = Session(state.database.engine)
    task = session.get_one(ProcessingTask, running.task.id)
    task.task_name = "held"
    session.flush()
    assert not running.close().shown
    task.task_status = "SUCCESS"
    session.commit()
    session.close()
    assert running.owed() == END
    state.upkeep()
    assert running.owed() == []
    assert state.wait(running.task, timeout=5).status == TaskStatus.SUCCESS


# What it costs


def test_close_of_a_task_without_subscribers_sends_one_statement_that_writes_nothing(state: TaskState) -> None:
    task = state.start(say.s())
    with state.database.reading() as connection:
        job = jobs.find_job(connection, task.id)
        (celery_id,) = lookup.open_celery_ids(connection, task.id)
    assert job is not None
    closing = closing_close.Closing(key=ExecutionKey(celery_id), name="say", state=ExecutionState.SUCCESS, lines=["x"])
    with statements(state.database) as sent:
        state.recorder.write(lambda connection: closing_close.close(connection, job.ref, closing))
    more = [text for text in sent if "taskstate_change" in text or "taskstate_delivery" in text]
    assert len(more) <= 1, more
    with state.database.reading() as connection:
        assert not connection.execute(select(change_table)).all()


def test_commit_of_a_task_without_subscribers_sends_two_short_statements_more(state: TaskState) -> None:
    task = state.start(say.s())
    with statements(state.database) as sent:
        for n in range(5):
            task.progress_value = n
            state.session.flush()
        task.add_task_log_entry("x")
        state.session.commit()
    more = [text for text in sent if "taskstate_change" in text or "taskstate_job" in text]
    assert len(more) <= 2, more


def test_commit_that_changes_no_task_sends_nothing(state: TaskState) -> None:
    task = ProcessingTask("x")
    task.save(commit=True)
    task.task_name = "y"
    with statements(state.database) as sent:
        state.session.commit()
    assert not [text for text in sent if "taskstate_" in text]


# Sessions of others


def test_session_of_a_host_tells(make_state: MakeState, state: TaskState) -> None:
    own = scoped_session(sessionmaker(state.database.engine))
    hosted = make_state(wakes=False, session=own, engine=state.database.engine)
    task = subscribed_task(hosted)
    task.progress_value = 4
    own.commit()
    assert take_owed(hosted, task.id) == [DETAILS]
    own.remove()


def test_models_alone_tell_without_a_task_state(state: TaskState, monkeypatch: pytest.MonkeyPatch) -> None:
    task = subscribed_task(state)
    task_id = task.id
    engine = state.database.engine
    monkeypatch.setattr(registry, "_entries", [])
    with Session(engine) as session:
        session.get_one(ProcessingTask, task_id).progress_value = 4
        session.commit()
    monkeypatch.undo()
    assert take_owed(state, task_id) == [DETAILS]


def test_fault_of_the_announcement_does_not_reach_who_commits(
    state: TaskState, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = subscribed_task(state)

    def fail() -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(state.recorder, "owe", fail)
    task.progress_value = 4
    state.session.commit()
    assert state.cancel(task)
    assert take_owed(state, task.id) == [DETAILS, *END]
