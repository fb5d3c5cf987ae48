"""What the reader tells of rows, on each database."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from celery import Celery
from sqlalchemy import insert, text, update

from qhana_taskstate import ProcessingTask, TaskFile, TaskLink, TaskState, TaskUpdateSubscription
from qhana_taskstate import facts as facts_module
from qhana_taskstate.clock import now
from qhana_taskstate.database.tables.executions import execution_table
from qhana_taskstate.database.tables.log import log_table
from qhana_taskstate.facts import DESCRIBED_LOG_BYTES, ExecutionKey, Publication
from qhana_taskstate.reading import open_work, tasks
from qhana_taskstate.reading.rows import executions, views
from qhana_taskstate.states import ExecutionState, TaskStatus
from qhana_taskstate.store.closing import close, holds
from qhana_taskstate.store.executions import registration
from qhana_taskstate.store.task import jobs
from qhana_taskstate.store.task_end import from_outside

pytestmark = pytest.mark.mariadb

MakeTaskState = Callable[..., TaskState]


@pytest.fixture
def make_taskstate(migrated_database_url: str) -> Iterator[MakeTaskState]:
    """Make a `TaskState` on the database."""
    made: list[TaskState] = []

    def make(**settings: Any) -> TaskState:
        app = Celery("reader-tests", broker="memory://", set_as_current=True)
        state = TaskState(app, database_url=migrated_database_url, **settings)
        made.append(state)
        return state

    yield make
    for state in made:
        state.close()
        state.app.close()


@pytest.fixture
def state(make_taskstate: MakeTaskState) -> TaskState:
    """A `TaskState` that knows its public URL."""
    return make_taskstate(public_url="https://q.example/plugin/")


def saved(**facts: Any) -> ProcessingTask:
    """Save a task and commit."""
    task = ProcessingTask(**{"task_name": "job", **facts})
    task.save(commit=True)
    return task


def an_output(task: ProcessingTask, **facts: Any) -> TaskFile:
    """Save a file of a task."""
    file = TaskFile(
        **{
            "task": task,
            "security_tag": "tag",
            "storage_provider": "local_filesystem",
            "file_name": "out.csv",
            "file_storage_data": "/data/out.csv",
            "file_type": "entity/list",
            "mimetype": "text/csv",
            **facts,
        }
    )
    file.save(commit=True)
    return file


def end(state: TaskState, task: ProcessingTask, status: str = "SUCCESS") -> None:
    """End a task by hand."""
    assert state.finish(task.id, status=status)


class TestDescribe:
    def test_a_pending_task_has_status_log_outputs_and_links_and_nothing_of_what_it_lacks(
        self, state: TaskState
    ) -> None:
        task = saved()

        described = state.describe(task.id)

        assert described == {
            "taskId": task.id,
            "taskName": "job",
            "startedAt": described["startedAt"],
            "status": "PENDING",
            "activity": {"word": "untracked", "text": "nobody gave it to the recorder"},
            "log": "",
            "outputs": [],
            "links": [{"type": "subscribe", "href": f"https://q.example/plugin/tasks/{task.id}/"}],
        }
        assert datetime.fromisoformat(described["startedAt"]).utcoffset() == timedelta(0)

    @pytest.mark.parametrize("entries", [1, 30])
    def test_a_long_log_is_described_by_its_newest_part(self, state: TaskState, entries: int) -> None:
        task = saved()
        lines = [f"{number:05} µ {'x' * 90}" for number in range(900)]
        for start in range(0, 900, 900 // entries):
            task.add_task_log_entry("\n".join(lines[start : start + 900 // entries]), commit=True)
        whole = "\n".join(lines)
        assert len(whole.encode()) > DESCRIBED_LOG_BYTES

        first, rest = state.describe(task.id)["log"].split("\n", 1)

        assert whole.endswith("\n" + rest) and DESCRIBED_LOG_BYTES - 100 < len(rest.encode()) <= DESCRIBED_LOG_BYTES
        assert first == f"[{len(whole) - len(rest):,} characters of the log are left out here]"
        assert state.describe(task.id, log_bytes=None)["log"] == task.task_log == whole
        assert state.describe(task.id, log_bytes=10**9)["log"] == whole
        assert state.describe(task.id, log_bytes=200)["log"].endswith(lines[-1])

    def test_a_failed_task_has_the_wire_word_and_no_traceback(self, state: TaskState) -> None:
        task = saved(task_log="it broke")
        end(state, task, "ERROR")

        described = state.describe(task.id)

        assert described["status"] == "FAILURE"
        assert described["log"] == "it broke"
        assert "finishedAt" in described
        assert state.session.get_one(ProcessingTask, task.id).status == "ERROR"

    def test_the_wire_word_is_a_setting(self, make_taskstate: MakeTaskState) -> None:
        state = make_taskstate(wire_error_status="ERROR", error_status="FAILURE")
        task = saved()
        end(state, task, "ERROR")

        assert state.describe(task.id)["status"] == "ERROR"

    def test_outputs_are_shown_once_the_task_has_ended_in_the_order_of_their_ids(self, state: TaskState) -> None:
        task = saved()
        first = an_output(task)
        second = an_output(task, file_name="b.json", mimetype="application/json", security_tag="a/b c")
        assert state.describe(task.id)["outputs"] == []

        end(state, task)

        assert state.describe(task.id)["outputs"] == [
            {
                "dataType": "entity/list",
                "contentType": "text/csv",
                "href": f"https://q.example/plugin/files/{first.id}/?file-id=tag",
                "name": "out.csv",
            },
            {
                "dataType": "entity/list",
                "contentType": "application/json",
                "href": f"https://q.example/plugin/files/{second.id}/?file-id=a%2Fb%20c",
                "name": "b.json",
            },
        ]

    def test_files_that_are_no_result_are_left_out(self, state: TaskState) -> None:
        task = saved()
        an_output(task, file_type=None)
        an_output(task, mimetype=None)
        an_output(task, file_type="temp-file")
        end(state, task)

        assert state.describe(task.id)["outputs"] == []

    def test_a_url_file_has_its_url_verbatim_and_another_store_has_no_address(self, state: TaskState) -> None:
        task = saved()
        an_output(task, storage_provider="url_file_store", file_storage_data="https://d.example/x?a=b#c")
        an_output(task, storage_provider="minio")
        end(state, task)

        outputs = state.describe(task.id)["outputs"]

        assert outputs[0]["href"] == "https://d.example/x?a=b#c"
        assert "href" not in outputs[1]

    def test_without_a_public_url_there_is_no_subscribe_link_and_files_have_a_path(
        self, make_taskstate: MakeTaskState
    ) -> None:
        state = make_taskstate()
        task = saved()
        file = an_output(task)
        end(state, task)

        described = state.describe(task.id)

        assert described["links"] == []
        assert described["outputs"][0]["href"] == f"/files/{file.id}/?file-id=tag"

    def test_links_follow_the_subscribe_link(self, state: TaskState) -> None:
        task = saved()
        for type_ in "ba":
            state.session.add(TaskLink(task, type_, f"https://q.example/{type_}"))
            state.session.commit()

        assert state.describe(task.id)["links"][1:] == [
            {"type": "b", "href": "https://q.example/b"},
            {"type": "a", "href": "https://q.example/a"},
        ]

    @pytest.mark.parametrize(("value", "shown"), [(0, 0), (60, 60), (62.5, 62.5)])
    def test_progress_is_shown_also_at_zero_with_exactly_the_keys_of_the_resource(
        self, state: TaskState, value: float, shown: float
    ) -> None:
        task = saved(progress_value=value)

        progress = state.describe(task.id)["progress"]

        assert progress == {"value": shown, "start": 0, "target": 100, "unit": "%"}
        assert isinstance(progress["target"], int)

    def test_steps_have_exactly_the_keys_of_the_resource(self, state: TaskState) -> None:
        task = saved()
        task.add_next_step(href="https://q.example/s1", ui_href="https://q.example/u1", step_id="one", commit=True)
        task.clear_previous_step(commit=True)
        task.add_next_step(href="https://q.example/s2", ui_href="https://q.example/u2", step_id="two", commit=True)

        assert state.describe(task.id)["steps"] == [
            {"href": "https://q.example/s1", "uiHref": "https://q.example/u1", "stepId": "one", "cleared": True},
            {"href": "https://q.example/s2", "uiHref": "https://q.example/u2", "stepId": "two", "cleared": False},
        ]

    def test_it_is_read_anew_though_the_session_knows_the_rows(self, state: TaskState) -> None:
        task = saved()
        state.describe(task.id)
        with state.session_scope() as other:
            elsewhere = other.get_one(ProcessingTask, task.id)
            elsewhere.add_next_step(href="h", ui_href="u", step_id="s")
            elsewhere.add_task_log_entry("from elsewhere")
            other.commit()

        described = state.describe(task.id)

        assert described["log"] == "from elsewhere"
        assert len(described["steps"]) == 1

    def test_it_is_json_and_holds_neither_parameters_nor_data(self, state: TaskState) -> None:
        task = saved(parameters='{"token": "s3cret"}', data={"password": "s3cret"}, progress_value=1.5)

        assert "s3cret" not in json.dumps(state.describe(task.id))

    def test_nulls_of_an_old_database_read_as_defaults(self, state: TaskState) -> None:
        with state.database.transaction() as connection:
            connection.execute(insert(ProcessingTask.__table__).values(task_log="", progress_value=3))
            for column in ("task_name", "started_at", "progress_start", "progress_target", "progress_unit"):
                quote = connection.dialect.identifier_preparer.quote
                connection.execute(text(f"UPDATE {quote('ProcessingTask')} SET {column} = NULL"))  # noqa: S608
        with state.database.reading() as connection:
            [view] = tasks.list_tasks(connection, state.settings)

        described = state.describe(view.id)

        assert described["progress"] == {"value": 3, "start": 0, "target": 100, "unit": "%"}
        assert described["taskName"] == ""
        assert "startedAt" not in described
        assert (view.task_name, view.started_at, view.seconds(now())) == ("", None, None)
        assert view.progress == views.ProgressView(value=3, start=0, target=100, unit="%")


class TestListTasks:
    def page(self, state: TaskState, **filters: Any) -> list[views.TaskView]:
        """List tasks."""
        with state.database.reading() as connection:
            return tasks.list_tasks(connection, state.settings, **filters)

    def ids(self, state: TaskState, **filters: Any) -> list[int]:
        """List ids."""
        return [view.id for view in self.page(state, **filters)]

    def test_newest_come_first_and_pages_follow_each_other(self, state: TaskState) -> None:
        ids = [saved().id for _ in range(5)][::-1]

        first = self.ids(state, limit=2)
        second = self.ids(state, limit=2, before=first[-1])

        assert first + second + self.ids(state, limit=2, before=second[-1]) == ids

    def test_status_filters_know_both_words_for_a_failure(self, state: TaskState) -> None:
        pending, success, error, failure, odd, unknown = (saved() for _ in range(6))
        end(state, success)
        end(state, error, "ERROR")
        with state.database.transaction() as connection:
            quoted = connection.dialect.identifier_preparer.quote("ProcessingTask")
            for task, word in ((failure, "FAILURE"), (odd, "WEIRD"), (unknown, None)):
                connection.execute(
                    text(f"UPDATE {quoted} SET task_status = :word, finished_at = :now WHERE id = :id"),  # noqa: S608
                    {"word": word, "id": task.id, "now": datetime(2020, 1, 1)},  # noqa: DTZ001  (as old runners)
                )

        assert self.ids(state, status="PENDING") == [pending.id]
        assert self.ids(state, status="SUCCESS") == [success.id]
        assert self.ids(state, status="ERROR") == [failure.id, error.id]
        assert self.ids(state, status="FAILURE") == [failure.id, error.id]
        assert self.ids(state, status="WEIRD") == [odd.id]
        assert self.ids(state, status="UNKNOWN") == [unknown.id]
        assert [view.status for view in self.page(state)] == [
            "UNKNOWN",
            "WEIRD",
            "ERROR",
            "ERROR",
            "SUCCESS",
            "PENDING",
        ]

    def test_names_match_in_part_and_any_case_and_wildcards_mean_themselves(self, state: TaskState) -> None:
        one, two = saved(task_name="Cluster 100%"), saved(task_name="cluster 1000")

        assert self.ids(state, name="CLUSTER") == [two.id, one.id]
        assert self.ids(state, name="100%") == [one.id]

    def test_a_task_tells_who_waits_for_it_and_whether_it_was_given_to_us(self, state: TaskState) -> None:
        untracked, tracked = saved(), saved()
        tracked.add_next_step(href="h", ui_href="u", step_id="k", commit=True)
        with state.database.transaction() as connection:
            jobs.take_up(connection, tracked.id, finishes=False)

        second, first = self.page(state)

        assert (first.tracked, first.open_ended, first.waiting_step) == (False, False, None)
        assert (second.tracked, second.open_ended) == (True, True)
        assert second.waiting_step == views.StepView(number=0, step_id="k", href="h", ui_href="u", cleared=False)
        with state.database.reading() as connection:
            assert tasks.open_task_ids(connection) == [tracked.id]
        assert untracked.id == first.id

    def test_many_ids_are_read_at_once_and_unknown_ones_left_out(self, state: TaskState) -> None:
        task = saved()

        with state.database.reading() as connection:
            found = tasks.get_tasks(connection, state.settings, [*range(task.id, task.id + 1200), task.id])

        assert [view.id for view in found] == [task.id]


def add_execution(taskstate: TaskState, task_id: int, celery_id: str, **facts: Any) -> None:
    """Insert an execution."""
    with taskstate.database.transaction() as connection:
        connection.execute(
            insert(execution_table).values(
                **{
                    "task_id": task_id,
                    "celery_id": celery_id,
                    "retries": 0,
                    "nesting": 0,
                    "name": "work",
                    "state": ExecutionState.QUEUED.value,
                    "deliveries": 0,
                    **facts,
                }
            )
        )


class TestActivity:
    def tracked(self, state: TaskState, *, finishes: bool | None = None) -> ProcessingTask:
        """Save a task that the recorder was given."""
        task = saved()
        with state.database.transaction() as connection:
            jobs.take_up(connection, task.id, finishes=finishes)
        return task

    def seen(self, state: TaskState, task: ProcessingTask) -> tuple[str, str]:
        """Read word and sentence, which are the same in a list and in the task resource."""
        described = state.describe(task.id)["activity"]
        with state.database.reading() as connection:
            [view] = tasks.get_tasks(connection, state.settings, [task.id])
        assert view.activity.word == described["word"]
        return described["word"], described["text"]

    def test_queued_then_running_then_silent(self, state: TaskState) -> None:
        task = self.tracked(state)
        add_execution(state, task.id, "a", queue="slow", published_at=now())
        assert self.seen(state, task) == ("queued", "queued in slow")

        def write(**values: Any) -> None:
            with state.database.transaction() as connection:
                connection.execute(update(execution_table).values(**values))

        write(state="RUNNING", worker="w@host", heartbeat_at=now(), deliveries=1)
        assert self.seen(state, task) == ("running", "running on w@host")
        write(heartbeat_at=now() - timedelta(seconds=400))
        assert self.seen(state, task) == ("silent", "no sign of life for 6 min from w@host")
        write(state="QUEUED", heartbeat_at=None)
        assert self.seen(state, task) == ("queued", "queued in slow, to be delivered again")

    def test_a_countdown_and_a_retry_say_when(self, state: TaskState) -> None:
        delayed, retried = self.tracked(state), self.tracked(state)
        add_execution(state, delayed.id, "a", published_at=now(), eta=now() + timedelta(seconds=93.4))
        add_execution(state, retried.id, "b", state="RETRY", closed_at=now())
        add_execution(state, retried.id, "b", retries=1, published_at=now(), eta=now() + timedelta(seconds=10.4))

        assert self.seen(state, delayed) in [("delayed", f"starts in {seconds} s") for seconds in (93, 92)]
        assert self.seen(state, retried) in [("retrying", f"tried again in {seconds} s") for seconds in (10, 9)]

    def test_what_nothing_is_open_of_says_what_it_waits_for(self, state: TaskState) -> None:
        stepped, open_ended, parked, held = (
            self.tracked(state, finishes=finishes) for finishes in (None, False, None, None)
        )
        stepped.add_next_step(href="h", ui_href="u", step_id="k", commit=True)
        parked.add_next_step(href="h", ui_href="u", step_id="k", commit=True)
        with state.database.transaction() as connection:
            assert from_outside.evaluate(connection, parked.id).ended is None
            holds.hold(connection, held.id)
        parked.clear_previous_step(commit=True)

        assert self.seen(state, stepped) == ("waiting", "waits for input at step k")
        assert self.seen(state, open_ended)[0] == "open-ended"
        assert self.seen(state, parked)[0] == "parked"
        assert self.seen(state, held)[0] == "submitting"

    def test_a_failed_task_says_the_first_line_of_its_cause(self, state: TaskState) -> None:
        task = self.tracked(state)
        key = ExecutionKey("a")
        failure = facts_module.Failure(type="ValueError", message="no such column\nsecond line")
        with state.database.transaction() as connection:
            registration.register(
                connection, task.id, [Publication(key, "work", None, "celery", now(), None)], deadline_seconds=86400
            )
            job = jobs.find_job(connection, task.id)
            assert job is not None
            closing = close.Closing(key=key, name="work", state=ExecutionState.FAILURE, failure=failure)
            close.close(connection, job.ref, closing)

        assert self.seen(state, task) == ("ended", "work: ValueError: no such column …")

    def test_what_is_dropped_after_a_cancel_is_not_its_cause(self, state: TaskState) -> None:
        task = self.tracked(state)
        assert state.cancel(task.id, reason="too late\nfor that")
        task.add_task_log_entry("written afterwards", commit=True)
        add_execution(state, task.id, "a", state="REVOKED", closed_at=now(), error_type="TaskRevokedError")
        assert self.seen(state, task) == ("ended", "cancelled: too late …")

    def test_an_older_log_entry_is_not_taken_for_the_cause(self, state: TaskState) -> None:
        task = self.tracked(state)
        with state.database.transaction() as connection:
            entry = {"task_id": task.id, "text": "60 % done", "glued": False}
            connection.execute(insert(log_table).values(created_at=now() - timedelta(minutes=5), **entry))

        end(state, task, "ERROR")

        assert self.seen(state, task) == ("ended", "failed")

    def test_a_canvas_of_a_thousand_is_read_in_a_few_rows(self, state: TaskState) -> None:
        task = self.tracked(state)
        publications = [
            Publication(ExecutionKey(str(number)), "work", None, f"q{number % 5}", now(), None)
            for number in range(1000)
        ]
        with state.database.transaction() as connection:
            registration.register(connection, task.id, publications, deadline_seconds=86400)

        with state.database.reading() as connection:
            [work] = open_work.read(connection, [task.id]).values()

        assert len(work.messages) == 5
        assert self.seen(state, task) == ("queued", "queued in q0, q1, q2 and 2 more")


class TestExecutions:
    def read(self, state: TaskState, task_id: int) -> list[views.ExecutionView]:
        """Read the executions."""
        with state.database.reading() as connection:
            return executions.executions(connection, task_id)

    def test_waiting_time_counts_from_the_moment_it_could_begin(self, state: TaskState) -> None:
        task = saved()
        noon = datetime(2026, 3, 4, 12, tzinfo=UTC)
        add_execution(
            state,
            task.id,
            "a",
            published_at=noon,
            eta=noon + timedelta(seconds=10),
            started_at=noon + timedelta(seconds=12),
            closed_at=noon + timedelta(seconds=15.5),
            state="SUCCESS",
        )

        [view] = self.read(state, task.id)

        assert (view.waiting_seconds, view.run_seconds) == (2.0, 3.5)
        assert view.published_at == noon

    def test_an_open_execution_counts_up_to_now_and_one_that_is_not_due_does_not_wait(self, state: TaskState) -> None:
        task = saved()
        add_execution(state, task.id, "a", published_at=now() - timedelta(seconds=30))
        add_execution(state, task.id, "b", published_at=now(), eta=now() + timedelta(hours=1))
        add_execution(state, task.id, "c", started_at=now() - timedelta(seconds=40), state="RUNNING")

        seen = {view.celery_id: view for view in self.read(state, task.id)}

        assert seen["a"].waiting_seconds == pytest.approx(30, abs=10)
        assert seen["a"].run_seconds is None
        assert seen["b"].waiting_seconds == 0
        assert seen["c"].waiting_seconds is None
        assert seen["c"].run_seconds == pytest.approx(40, abs=10)

    def test_they_come_in_the_order_of_publication_and_attempts_in_theirs(self, state: TaskState) -> None:
        task, other = saved(), saved()
        begin = datetime(2026, 3, 4, 12, tzinfo=UTC)
        for number, (celery_id, retries) in enumerate([("b", 0), ("a", 0), ("b", 1)]):
            moment = begin + timedelta(seconds=number)
            add_execution(state, task.id, celery_id, retries=retries, published_at=moment)
        add_execution(state, other.id, "z")

        assert [(view.celery_id, view.attempt) for view in self.read(state, task.id)] == [("b", 1), ("a", 1), ("b", 2)]


class TestShow:
    def test_all_of_a_task_is_told(self, state: TaskState) -> None:
        task = saved()
        an_output(task)
        state.session.add(TaskLink(task, "more", "https://q.example/more"))
        TaskUpdateSubscription(task, "https://me.example/hook?key=s3cret", "https://q.example/t").save(commit=True)
        task.add_next_step(href="h", ui_href="u", step_id="k", commit=True)
        task.add_task_log_entry("one", commit=True)
        publication = Publication(ExecutionKey("a"), "work", None, "celery", now(), None)
        with state.database.transaction() as connection:
            jobs.take_up(connection, task.id)
            registration.register(connection, task.id, [publication], deadline_seconds=86400)
            holds.hold(connection, task.id)

        with state.database.reading() as connection:
            detail = tasks.show(connection, state.settings, task.id)

        assert detail is not None
        assert detail.task.id == task.id
        assert detail.decided_status is None
        assert [step.step_id for step in detail.steps] == ["k"]
        assert [output.file_name for output in detail.outputs] == ["out.csv"]
        assert [link.type for link in detail.links] == ["more"]
        assert (detail.subscriptions, detail.holds) == (1, 1)
        assert detail.log == "one"
        assert [execution.name for execution in detail.executions] == ["work"]
        assert "s3cret" not in repr(detail)

    def test_a_decided_end_is_told_while_somebody_holds_the_row(self, state: TaskState) -> None:
        task = saved()
        with state.database.transaction() as connection:
            jobs.take_up(connection, task.id)
        with state.database.transaction() as connection:
            connection.execute(
                text("UPDATE taskstate_job SET end_status = 'ERROR', ended_at = created_at WHERE task_id = :id"),
                {"id": task.id},
            )

        with state.database.reading() as connection:
            detail = tasks.show(connection, state.settings, task.id)

        assert detail is not None
        assert (detail.task.status, detail.decided_status) == (TaskStatus.PENDING, "ERROR")

    def test_no_such_row_is_none(self, state: TaskState) -> None:
        with state.database.reading() as connection:
            assert tasks.show(connection, state.settings, 1) is None


@pytest.mark.parametrize(
    ("start", "target", "value", "share"), [(0, 100, 25, 0.25), (10, 20, 15, 0.5), (0, 10, 20, 1), (5, 5, 5, 1)]
)
@pytest.mark.databases("sqlite")
def test_a_share_stays_between_nothing_and_all(start: float, target: float, value: float, share: float) -> None:
    assert views.ProgressView(value=value, start=start, target=target, unit="").share == share
