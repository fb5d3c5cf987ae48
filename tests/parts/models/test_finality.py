"""The end of a task: once, whoever else tries."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import func, insert, select, text, update
from sqlalchemy.orm import Session

from qhana_taskstate.clock import now
from qhana_taskstate.database.sessions.scopes import Sessions
from qhana_taskstate.database.tables.jobs import job_table
from qhana_taskstate.database.tables.runner import task_table
from qhana_taskstate.errors import StatusError
from qhana_taskstate.facts import ExecutionKey
from qhana_taskstate.models.task import ProcessingTask
from qhana_taskstate.states import ExecutionState, TaskStatus
from qhana_taskstate.store.closing import close
from qhana_taskstate.store.task import jobs
from qhana_taskstate.store.task_end import from_outside
from qhana_taskstate.store.task_end.end import TaskFinishedWarning

MakeSession = Callable[[], Session]


def row_of(session: Session, task: ProcessingTask) -> tuple[str | None, datetime | None]:
    """What the database says of the end of a task."""
    row = session.connection().execute(
        select(task_table.c.task_status, task_table.c.finished_at).where(task_table.c.id == task.id)
    )
    found = row.one()
    return found.task_status, found.finished_at


def add_job(session: Session, task: ProcessingTask, **values: Any) -> None:
    """Give a task to the recorder."""
    session.execute(
        insert(job_table).values(
            task_id=task.id, token="t", open_ended=False, parked=False, had_work=True, end_copied=False, **values
        )
    )
    session.commit()


def job_of(session: Session, task: ProcessingTask) -> Any:
    return session.connection().execute(select(job_table).where(job_table.c.task_id == task.id)).one()


def test_the_same_end_from_two_sessions_warns_of_nothing(
    current: Session, task: ProcessingTask, elsewhere: MakeSession
) -> None:
    other = elsewhere()
    theirs = other.get_one(ProcessingTask, task.id)
    task.task_status = "ERROR"
    current.commit()

    theirs.task_status = "FAILURE"
    other.commit()

    assert theirs.finished_at == row_of(current, task)[1]


@pytest.mark.parametrize("word", ["SUCCESS", "ERROR"])
def test_a_terminal_word_sets_finished_at_if_it_is_missing(task: ProcessingTask, word: str) -> None:
    before = datetime.now(UTC) - timedelta(seconds=1)
    task.task_status = word
    task.save(commit=True)

    assert task.status == word
    assert task.finished_at is not None
    assert before <= task.finished_at


def test_a_terminal_word_keeps_a_given_finished_at(current: Session, task: ProcessingTask) -> None:
    moment = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    task.task_status, task.finished_at = "SUCCESS", moment
    current.commit()

    assert row_of(current, task) == ("SUCCESS", moment)


def test_a_new_task_can_be_inserted_as_finished(current: Session) -> None:
    task = ProcessingTask("import", task_status="SUCCESS", progress_value=0, progress_target=7)
    task.add_next_step("href", "ui", "k")
    task.save(commit=True)

    assert task.is_ok
    assert task.progress_value == 7
    assert not task.has_uncleared_step


def test_pending_and_none_can_be_set_on_an_unfinished_task(current: Session, task: ProcessingTask) -> None:
    task.task_status = "PENDING"
    current.commit()
    assert row_of(current, task) == ("PENDING", None)

    task.task_status = None
    current.commit()
    assert row_of(current, task) == (None, None)


def test_a_terminal_word_can_be_taken_back_before_the_flush(current: Session, task: ProcessingTask) -> None:
    task.task_status = "ERROR"
    task.task_status = None
    current.commit()

    assert row_of(current, task) == (None, None)


@pytest.mark.parametrize("value", ["ERROR", "PENDING", None])
def test_a_new_status_for_a_finished_task_is_ignored_with_a_warning(
    current: Session, task: ProcessingTask, value: str | None
) -> None:
    task.task_status = "SUCCESS"
    current.commit()
    moment = task.finished_at

    with pytest.warns(TaskFinishedWarning, match=f"task {task.id} has already ended as SUCCESS") as caught:
        task.task_status = value
    with pytest.warns(TaskFinishedWarning):
        task.finished_at = None
    current.commit()

    assert caught[0].filename == __file__
    assert (task.task_status, task.finished_at) == ("SUCCESS", moment)
    assert row_of(current, task)[0] == "SUCCESS"


def test_the_same_status_again_warns_of_nothing(current: Session, task: ProcessingTask) -> None:
    task.task_status = "ERROR"
    current.commit()

    task.task_status = "FAILURE"
    task.finished_at = task.finished_at


def test_a_wrong_word_for_a_finished_task_is_an_error(current: Session, task: ProcessingTask) -> None:
    task.task_status = "ERROR"
    current.commit()

    with pytest.raises(StatusError):
        task.task_status = "DONE"


def test_word_and_moment_may_be_set_with_a_query_in_between(current: Session, task: ProcessingTask) -> None:
    moment = datetime(2026, 1, 2, tzinfo=UTC)
    task.finished_at = moment
    current.scalars(select(ProcessingTask)).all()
    task.task_status = "SUCCESS"
    current.commit()
    assert row_of(current, task) == ("SUCCESS", moment)

    other = ProcessingTask("other")
    other.save(commit=True)
    other.task_status = "ERROR"
    current.scalars(select(ProcessingTask)).all()
    other.finished_at = moment
    current.commit()
    assert row_of(current, other)[0] == "ERROR"


def test_the_word_cannot_be_given_after_the_commit(current: Session, task: ProcessingTask) -> None:
    task.finished_at = now()
    current.commit()
    assert task.status == "UNKNOWN"

    with pytest.warns(TaskFinishedWarning, match="ended as UNKNOWN"):
        task.task_status = "SUCCESS"


def test_a_session_that_loaded_pending_does_not_overwrite_an_end(
    current: Session, task: ProcessingTask, elsewhere: MakeSession
) -> None:
    other = elsewhere()
    theirs = other.get_one(ProcessingTask, task.id)
    task.task_status = "ERROR"
    current.commit()
    moment = row_of(current, task)[1]
    current.rollback()

    theirs.task_status = "SUCCESS"
    theirs.parameters = "changed"
    with pytest.warns(TaskFinishedWarning, match="the new status 'SUCCESS' is ignored"):
        other.commit()

    assert (theirs.task_status, theirs.finished_at) == ("ERROR", moment)
    assert row_of(other, task) == ("ERROR", moment)
    assert theirs.parameters == "changed"


def test_a_session_that_loaded_pending_does_not_write_pending_over_an_end(
    current: Session, task: ProcessingTask, elsewhere: MakeSession
) -> None:
    other = elsewhere()
    theirs = other.get_one(ProcessingTask, task.id)
    task.task_status = "ERROR"
    current.commit()

    theirs.task_status = "PENDING"
    with pytest.warns(TaskFinishedWarning):
        other.commit()

    assert theirs.status == "ERROR"
    assert row_of(other, task)[0] == "ERROR"


def test_of_two_ends_at_once_one_wins(
    current: Session, elsewhere: MakeSession, at_once: Callable[..., list[Any]]
) -> None:
    tasks = [ProcessingTask(f"task {number}") for number in range(8)]
    current.add_all(tasks)
    current.commit()
    sessions = [elsewhere(), elsewhere()]

    def end(session: Session, task_id: int, word: str) -> str | None:
        task = session.get_one(ProcessingTask, task_id)
        task.task_status = word
        session.commit()
        return task.task_status

    for task in tasks:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            words = at_once(
                lambda task_id=task.id: end(sessions[0], task_id, "SUCCESS"),
                lambda task_id=task.id: end(sessions[1], task_id, "ERROR"),
            )
        stored, _ = row_of(current, task)
        current.rollback()
        assert words == [stored, stored]
        assert len(caught) <= 1


def test_rolling_back_takes_the_end_back(current: Session, task: ProcessingTask) -> None:
    task.task_status = "ERROR"
    current.flush()

    current.rollback()

    assert task.status == "PENDING"
    task.task_status = "SUCCESS"
    current.commit()
    assert task.is_ok


def test_rolling_back_to_a_savepoint_takes_the_end_back(current: Session, task: ProcessingTask) -> None:
    task.parameters = "before"
    with current.begin_nested() as savepoint:
        task.task_status = "ERROR"
        current.flush()
        savepoint.rollback()

    assert task.status == "PENDING"
    current.commit()
    assert row_of(current, task) == (None, None)
    assert task.parameters == "before"


def test_every_end_clears_an_open_step(current: Session, task: ProcessingTask) -> None:
    task.add_next_step("href", "ui", "k", commit=True)
    step = task.steps[0]

    task.task_status = "ERROR"
    current.commit()

    assert step.cleared
    assert not task.has_uncleared_step
    current.refresh(step)
    assert step.cleared


def test_success_sets_a_reported_progress_to_its_target(current: Session, task: ProcessingTask) -> None:
    task.progress_value, task.progress_target = 0, 7
    current.commit()

    task.task_status = "SUCCESS"
    current.commit()

    assert task.progress_value == 7
    current.refresh(task)
    assert task.progress_value == 7


def _by_assignment(session: Session, task: ProcessingTask) -> None:
    task.task_status = "SUCCESS"


def _by_statement(session: Session, task: ProcessingTask) -> None:
    session.execute(update(ProcessingTask).where(ProcessingTask.id == task.id).values(task_status="SUCCESS"))


def _by_finish(session: Session, task: ProcessingTask) -> None:
    from_outside.end(session.connection(), task.id, TaskStatus.SUCCESS)


def _by_its_execution(session: Session, task: ProcessingTask) -> None:
    ref = jobs.take_up(session.connection(), task.id).ref
    closing = close.Closing(key=ExecutionKey("a"), name="work", state=ExecutionState.SUCCESS)
    close.close(session.connection(), ref, closing)


@pytest.mark.parametrize("end", [_by_assignment, _by_statement, _by_finish, _by_its_execution])
@pytest.mark.parametrize(("target", "seen"), [(7.0, 7), (None, 100)], ids=["target", "no target"])
def test_every_success_sets_a_reported_progress_to_the_target_that_is_read(
    current: Session,
    task: ProcessingTask,
    end: Callable[[Session, ProcessingTask], None],
    target: float | None,
    seen: float,
) -> None:
    task.progress_value = 3
    current.commit()
    # As in the row of an older runner; an assigned None would become the default.
    current.execute(text('UPDATE "ProcessingTask" SET progress_target = :target'), {"target": target})
    current.commit()

    end(current, task)
    current.commit()
    current.refresh(task)

    assert (task.status, task.progress_value, task.progress_target) == ("SUCCESS", seen, seen)


def test_success_takes_progress_that_is_set_with_it(current: Session, task: ProcessingTask) -> None:
    task.progress_value, task.progress_target, task.task_status = 1, 5, "SUCCESS"
    current.commit()
    current.refresh(task)

    assert (task.progress_value, task.progress_target) == (5, 5)


def test_success_reports_no_progress_that_nobody_reported(current: Session, task: ProcessingTask) -> None:
    task.task_status = "SUCCESS"
    current.commit()

    assert task.progress_value is None


def test_error_leaves_the_progress_alone(current: Session, task: ProcessingTask) -> None:
    task.progress_value = 30
    task.task_status = "ERROR"
    current.commit()

    assert task.progress_value == 30


def test_an_end_by_hand_is_decided_in_the_job_row(current: Session, task: ProcessingTask) -> None:
    add_job(current, task)

    task.task_status = "FAILURE"
    current.commit()

    job = job_of(current, task)
    assert (job.end_status, job.ended_at, job.end_copied) == ("ERROR", task.finished_at, True)


def test_the_end_that_the_recorder_decided_wins(current: Session, task: ProcessingTask) -> None:
    moment = datetime(2026, 1, 2, tzinfo=UTC)
    add_job(current, task, end_status="ERROR", ended_at=moment)

    task.task_status = "SUCCESS"
    with pytest.warns(TaskFinishedWarning):
        current.commit()

    assert (task.task_status, task.finished_at) == ("ERROR", moment)
    assert row_of(current, task) == ("ERROR", moment)
    assert job_of(current, task).end_copied


def test_a_deleted_row_is_not_ended_in_silence(current: Session, task: ProcessingTask, elsewhere: MakeSession) -> None:
    other = elsewhere()
    other.delete(other.get_one(ProcessingTask, task.id))
    other.commit()

    task.task_status = "SUCCESS"
    with pytest.raises(Exception, match="expected to update 1 row"):
        current.commit()


class TestUpdateStatements:
    def test_an_update_ends_a_task_as_a_flush_does(self, current: Session, task: ProcessingTask) -> None:
        add_job(current, task)
        task.progress_value = 3
        task.add_next_step("href", "ui", "k", commit=True)

        current.execute(update(ProcessingTask).where(ProcessingTask.id == task.id).values(task_status="SUCCESS"))
        current.commit()

        assert task.is_ok
        assert task.progress_value == 100
        assert not task.has_uncleared_step
        assert job_of(current, task).end_status == "SUCCESS"

    def test_an_update_leaves_finished_tasks_alone(self, current: Session, task: ProcessingTask) -> None:
        done = ProcessingTask("done", task_status="ERROR")
        done.save(commit=True)

        result: Any = current.execute(update(ProcessingTask).values(task_status="SUCCESS"))
        current.commit()

        assert result.rowcount == 1
        assert (task.status, done.status) == ("SUCCESS", "ERROR")
        assert row_of(current, done)[0] == "ERROR"

    def test_an_update_of_other_columns_reaches_finished_tasks(self, current: Session) -> None:
        done = ProcessingTask("done", task_status="ERROR")
        done.save(commit=True)

        current.execute(update(ProcessingTask).values(parameters="changed"))
        current.commit()

        assert done.parameters == "changed"

    @pytest.mark.parametrize("moment", [now(), func.current_timestamp()], ids=["value", "expression"])
    def test_an_update_may_set_finished_at_alone(self, current: Session, task: ProcessingTask, moment: Any) -> None:
        current.execute(update(ProcessingTask).values(finished_at=moment))
        current.commit()

        assert task.status == "UNKNOWN"

    def test_an_update_to_pending_is_guarded_too(self, current: Session, task: ProcessingTask) -> None:
        done = ProcessingTask("done", task_status="ERROR")
        done.save(commit=True)

        current.execute(update(ProcessingTask).values(task_status="PENDING"))
        current.commit()

        assert row_of(current, task)[0] == "PENDING"
        assert row_of(current, done)[0] == "ERROR"

    def test_an_update_with_a_wrong_word_is_an_error(self, current: Session, task: ProcessingTask) -> None:
        with pytest.raises(StatusError):
            current.execute(update(ProcessingTask).values(task_status="DONE"))

    def test_an_update_respects_the_end_that_the_recorder_decided(self, current: Session, task: ProcessingTask) -> None:
        add_job(current, task, end_status="ERROR", ended_at=now())

        current.execute(update(ProcessingTask).values(task_status="SUCCESS"))
        current.commit()

        assert row_of(current, task)[0] == "ERROR"

    def test_an_update_of_many_by_key_is_guarded(self, current: Session, task: ProcessingTask) -> None:
        done = ProcessingTask("done", task_status="ERROR")
        done.save(commit=True)

        current.execute(
            update(ProcessingTask),
            [
                {"id": task.id, "task_status": "SUCCESS", "parameters": "one"},
                {"id": done.id, "task_status": "SUCCESS", "parameters": "two"},
            ],
        )
        current.commit()
        current.expire_all()

        assert (task.status, task.parameters) == ("SUCCESS", "one")
        assert (done.status, done.parameters) == ("ERROR", "two")


def test_both_words_for_an_error_are_read_as_the_one_that_is_set(
    current: Session, task: ProcessingTask, install_sessions: Callable[..., Sessions], database: Any
) -> None:
    for word in ("ERROR", "FAILURE"):
        current.connection().exec_driver_sql(
            f"UPDATE {current.connection().dialect.identifier_preparer.quote('ProcessingTask')} "  # noqa: S608
            f"SET task_status = '{word}', finished_at = CURRENT_TIMESTAMP"
        )
        current.commit()

        for wanted in ("ERROR", "FAILURE"):
            install_sessions(database, error_status=wanted)
            current.refresh(task)
            assert task.status == wanted


def test_another_old_word_is_shown_as_stored(current: Session, task: ProcessingTask) -> None:
    quoted = current.connection().dialect.identifier_preparer.quote("ProcessingTask")
    current.connection().exec_driver_sql(
        f"UPDATE {quoted} SET task_status = 'REVOKED', finished_at = CURRENT_TIMESTAMP"  # noqa: S608
    )
    current.commit()
    current.refresh(task)

    assert task.status == "REVOKED"
    assert not task.is_ok
