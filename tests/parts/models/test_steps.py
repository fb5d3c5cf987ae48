"""Steps: one at a time, each cleared by one caller alone."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import insert, select, text, update
from sqlalchemy.orm import Session

from qhana_taskstate.context import current as context_current
from qhana_taskstate.database.sessions.open_writes import has_open_write
from qhana_taskstate.database.sessions.scopes import Sessions
from qhana_taskstate.database.tables.jobs import job_table
from qhana_taskstate.errors import TaskFinishedError, TextTooLongError
from qhana_taskstate.facts import TaskRef
from qhana_taskstate.models.link import TaskLink
from qhana_taskstate.models.step import Step
from qhana_taskstate.models.task import ProcessingTask

MakeSession = Callable[[], Session]


@pytest.fixture
def tracked(current: Session, task: ProcessingTask) -> ProcessingTask:
    """A task with a job row."""
    current.execute(
        insert(job_table).values(
            task_id=task.id, token="t", open_ended=False, parked=False, had_work=True, end_copied=False
        )
    )
    current.commit()
    return task


def is_parked(session: Session, task: ProcessingTask) -> bool:
    query = select(job_table.c.parked).where(job_table.c.task_id == task.id)
    return bool(session.connection().execute(query).scalar_one())


class TestAddNextStep:
    def test_numbers_start_at_zero_and_the_first_sets_multi_step(
        self, current: Session, task: ProcessingTask, elsewhere: MakeSession
    ) -> None:
        task.add_next_step(href="href", ui_href="ui", step_id="one", commit=True)
        assert (task.multi_step, task.current_step) == (True, 0)
        task.clear_previous_step()
        task.add_next_step("href", "ui", "two")
        current.commit()

        read = elsewhere().get_one(ProcessingTask, task.id)

        assert [(step.number, step.step_id, step.cleared) for step in read.steps] == [
            (0, "one", True),
            (1, "two", False),
        ]
        assert (read.multi_step, read.current_step) == (True, 1)

    def test_open_steps_can_be_asked_for_as_sqlalchemy_says_it(self, current: Session, task: ProcessingTask) -> None:
        task.add_next_step(href="href", ui_href="ui", step_id="one", commit=True)

        open_steps = select(Step.step_id).where(Step.cleared.is_(False))
        assert current.execute(open_steps).scalars().all() == ["one"]
        assert current.execute(select(Step.step_id).where(Step.cleared.is_(True))).all() == []

    def test_it_works_before_the_task_is_saved(self, current: Session, elsewhere: MakeSession) -> None:
        task = ProcessingTask("new")
        task.add_next_step("href", "ui", "one")
        with pytest.raises(AssertionError):
            task.add_next_step("href", "ui", "two")
        assert task.clear_previous_step()
        task.add_next_step("href", "ui", "two", commit=True)

        read = elsewhere().get_one(ProcessingTask, task.id)

        assert [(step.number, step.cleared) for step in read.steps] == [(0, True), (1, False)]
        assert read.current_step == 1

    def test_it_raises_while_the_previous_step_is_not_cleared(self, current: Session, task: ProcessingTask) -> None:
        task.add_next_step("href", "ui", "one", commit=True)

        with pytest.raises(AssertionError, match="step 'one' still waits for input"):
            task.add_next_step("href", "ui", "two")
        current.commit()

        assert [step.step_id for step in task.steps] == ["one"]
        assert task.current_step == 0

    def test_it_sees_a_step_that_somebody_else_added(
        self, current: Session, task: ProcessingTask, elsewhere: MakeSession
    ) -> None:
        assert list(task.steps) == []
        current.commit()
        other = elsewhere()
        other.get_one(ProcessingTask, task.id).add_next_step("href", "ui", "theirs", commit=True)

        with pytest.raises(AssertionError, match="'theirs'"):
            task.add_next_step("href", "ui", "mine")
        assert [step.step_id for step in task.steps] == ["theirs"]

        other.get_one(ProcessingTask, task.id).clear_previous_step(commit=True)
        task.add_next_step("href", "ui", "mine", commit=True)
        assert [(step.number, step.step_id) for step in task.steps] == [(0, "theirs"), (1, "mine")]

    def test_a_refusal_holds_no_lock(self, current: Session, task: ProcessingTask, elsewhere: MakeSession) -> None:
        task.add_next_step("href", "ui", "one", commit=True)
        with pytest.raises(AssertionError):
            task.add_next_step("href", "ui", "two")

        other = elsewhere()
        other.get_one(ProcessingTask, task.id).parameters = "changed"
        other.commit()

    def test_a_refusal_keeps_changes_made_before(self, current: Session, task: ProcessingTask) -> None:
        task.add_next_step("href", "ui", "one", commit=True)
        task.data["k"] = 1
        with pytest.raises(AssertionError):
            task.add_next_step("href", "ui", "two")
        current.commit()
        current.refresh(task)

        assert task.data == {"k": 1}

    def test_it_rolls_back_with_its_session(self, current: Session, task: ProcessingTask) -> None:
        task.add_next_step("href", "ui", "one")

        current.rollback()

        assert (list(task.steps), task.current_step, task.multi_step) == ([], -1, False)
        task.add_next_step("href", "ui", "one", commit=True)
        assert task.steps[0].number == 0

    def test_a_finished_task_takes_no_step(self, current: Session, task: ProcessingTask) -> None:
        task.task_status = "ERROR"
        current.commit()

        with pytest.raises(TaskFinishedError, match="already ended as ERROR"):
            task.add_next_step("href", "ui", "one")

    def test_a_text_too_long_changes_nothing(self, current: Session, task: ProcessingTask) -> None:
        with pytest.raises(TextTooLongError, match=r"Step\.step_id of 501 characters"):
            task.add_next_step("href", "ui", "x" * 501)
        current.commit()

        assert (list(task.steps), task.multi_step) == ([], False)

    def test_of_two_callers_at_once_one_is_refused(
        self, current: Session, elsewhere: MakeSession, at_once: Callable[..., list[Any]]
    ) -> None:
        for _ in range(6):
            task = ProcessingTask("steps")
            task.save(commit=True)

            def add(session: Session, step_id: str, task_id: int = task.id) -> str:
                task = session.get_one(ProcessingTask, task_id)
                try:
                    task.add_next_step("href", "ui", step_id, commit=True)
                finally:
                    session.close()
                return step_id

            results = at_once(lambda: add(elsewhere(), "a"), lambda: add(elsewhere(), "b"))

            refused = [result for result in results if isinstance(result, AssertionError)]
            added = [result for result in results if isinstance(result, str)]
            assert (len(refused), len(added)) == (1, 1), results
            read = ProcessingTask.get_by_id(task.id)
            assert read is not None
            assert [step.step_id for step in read.steps] == added

    def test_it_parks_the_job(self, current: Session, tracked: ProcessingTask) -> None:
        tracked.add_next_step("href", "ui", "one", commit=True)

        assert is_parked(current, tracked)


class TestClearPreviousStep:
    def test_it_tells_whether_this_call_cleared_it(self, current: Session, task: ProcessingTask) -> None:
        task.add_next_step("href", "ui", "one", commit=True)

        assert task.clear_previous_step(commit=True) is True
        assert task.clear_previous_step() is False
        assert task.steps[0].cleared

    def test_it_does_nothing_without_a_step(self, current: Session, task: ProcessingTask) -> None:
        assert task.clear_previous_step() is False
        assert ProcessingTask("new").clear_previous_step() is False
        assert not has_open_write(current)

    def test_a_step_that_somebody_else_cleared_is_not_cleared_again(
        self, current: Session, task: ProcessingTask, elsewhere: MakeSession
    ) -> None:
        task.add_next_step("href", "ui", "one", commit=True)
        elsewhere().get_one(ProcessingTask, task.id).clear_previous_step(commit=True)

        assert task.clear_previous_step(commit=True) is False
        assert task.steps[0].cleared

    def test_it_rolls_back_with_its_session(self, current: Session, task: ProcessingTask) -> None:
        task.add_next_step("href", "ui", "one", commit=True)
        assert task.clear_previous_step()
        assert has_open_write(current)

        current.rollback()

        assert task.has_uncleared_step
        assert task.clear_previous_step(commit=True)

    def test_it_is_not_committed_by_a_read_that_follows(
        self, task: ProcessingTask, database: Any, install_sessions: Callable[..., Sessions], elsewhere: MakeSession
    ) -> None:
        task.add_next_step("href", "ui", "one", commit=True)
        session = install_sessions(database).current
        found = session.get_one(ProcessingTask, task.id)
        assert not session.in_transaction()

        found.clear_previous_step()
        assert found.steps[0].cleared
        assert found.outputs == []
        session.rollback()

        assert elsewhere().get_one(ProcessingTask, task.id).has_uncleared_step
        session.close()

    def test_it_hides_no_database_error(self, current: Session, task: ProcessingTask) -> None:
        task.add_next_step("href", "ui", "one", commit=True)
        quote = current.connection().dialect.identifier_preparer.quote
        current.execute(text(f"ALTER TABLE {quote('Step')} RENAME TO {quote('Gone')}"))
        current.commit()

        with pytest.raises(Exception, match="Step"):
            task.clear_previous_step()

    def test_of_several_callers_at_once_one_cleared_it(
        self, current: Session, elsewhere: MakeSession, at_once: Callable[..., list[Any]]
    ) -> None:
        for _ in range(5):
            task = ProcessingTask("steps")
            task.add_next_step("href", "ui", "one", commit=True)

            def clear(session: Session, task_id: int = task.id) -> bool:
                found = session.get_one(ProcessingTask, task_id)
                cleared = found.clear_previous_step(commit=True)
                session.close()
                return cleared

            results = at_once(*[lambda: clear(elsewhere())] * 3)

            assert sorted(results, key=str) == [False, False, True]

    def test_outside_an_execution_the_job_stays_parked(self, current: Session, tracked: ProcessingTask) -> None:
        tracked.add_next_step("href", "ui", "one", commit=True)

        tracked.clear_previous_step(commit=True)

        assert is_parked(current, tracked)

    def test_inside_an_execution_of_the_task_the_job_goes_on(
        self, current: Session, tracked: ProcessingTask, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        running = SimpleNamespace(ref=TaskRef(tracked.id, "token"))
        for clear in (
            lambda: tracked.clear_previous_step(),
            lambda: setattr(tracked.steps[-1], "cleared", True),
        ):
            tracked.add_next_step("href", "ui", "one", commit=True)
            monkeypatch.setattr(context_current, "current_execution", lambda: running)
            clear()
            current.commit()
            monkeypatch.undo()

            assert not is_parked(current, tracked)


class TestClearedAttribute:
    def test_setting_it_clears_the_step(self, current: Session, task: ProcessingTask, elsewhere: MakeSession) -> None:
        task.add_next_step("href", "ui", "one", commit=True)

        task.steps[-1].cleared = True
        assert not task.has_uncleared_step
        current.commit()

        assert not elsewhere().get_one(ProcessingTask, task.id).has_uncleared_step

    def test_the_next_step_can_be_added_at_once(self, current: Session, task: ProcessingTask) -> None:
        task.add_next_step("href", "ui", "one", commit=True)

        task.steps[-1].cleared = True
        task.add_next_step("href", "ui", "two", commit=True)

        assert [step.cleared for step in task.steps] == [True, False]

    def test_setting_it_does_not_clear_it_twice(self, current: Session, task: ProcessingTask) -> None:
        task.add_next_step("href", "ui", "one", commit=True)

        task.steps[-1].cleared = True

        assert task.clear_previous_step(commit=True) is False


class TestHasUnclearedStep:
    def test_it_says_whether_a_step_waits(self, task: ProcessingTask) -> None:
        seen = [task.has_uncleared_step]
        task.add_next_step("href", "ui", "one")
        seen.append(task.has_uncleared_step)
        task.clear_previous_step()
        seen.append(task.has_uncleared_step)

        assert seen == [False, True, False]

    def test_null_counts_as_not_cleared(self, current: Session, task: ProcessingTask) -> None:
        task.add_next_step("href", "ui", "one", commit=True)
        step = Step.__table__
        current.connection().execute(update(step).values(cleared=text("NULL")))
        current.commit()
        current.expire_all()

        assert task.has_uncleared_step
        assert task.steps[0].cleared is False
        assert task.clear_previous_step(commit=True)


def test_writers_of_all_kinds_wait_for_each_other_without_deadlock(
    current: Session, tracked: ProcessingTask, elsewhere: MakeSession
) -> None:
    """Each locks several rows of one task, and some flush the task's row long before the others."""
    task_id = tracked.id
    errors: list[BaseException] = []

    def change(kind: int) -> None:
        session = elsewhere()
        try:
            for number in range(12):
                task = session.get_one(ProcessingTask, task_id, populate_existing=True)
                if kind == 0:
                    task.data[f"k{number}"] = number
                    session.flush()
                if kind == 1:
                    session.add(TaskLink(task, "type", "href"))
                    session.flush()
                    task.parameters = f"{kind} {number}"
                task.clear_previous_step()
                with suppress(AssertionError):
                    task.add_next_step("href", "ui", f"{kind} {number}")
                if kind == 2:
                    task.add_task_log_entry(f"line {number}")
                session.commit()
        except BaseException as error:
            errors.append(error)
        finally:
            session.close()

    threads = [threading.Thread(target=change, args=(kind,)) for kind in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert errors == []
    read = ProcessingTask.get_by_id(task_id)
    assert read is not None
    assert [step.number for step in read.steps] == list(range(len(read.steps)))
    assert len(read.data) == 12
    assert len(read.task_log.split("\n")) == 12
