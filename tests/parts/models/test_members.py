"""Each member of the six classes: its name, its default, and what it is for."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.ext.orderinglist import OrderingList
from sqlalchemy.orm import Session, object_session

from qhana_taskstate.database.sessions.scopes import Sessions
from qhana_taskstate.errors import ProgressError, StatusError, TextTooLongError
from qhana_taskstate.models.file import TaskFile
from qhana_taskstate.models.link import TaskLink
from qhana_taskstate.models.step import Step
from qhana_taskstate.models.subscription import TaskUpdateSubscription, WebhookRef
from qhana_taskstate.models.task import ProcessingTask

MakeSession = Callable[[], Session]


def stored(session: Session, column: str, task: ProcessingTask) -> Any:
    """What another program finds in the row of a task."""
    quote = session.connection().dialect.identifier_preparer.quote
    return session.execute(
        text(f"SELECT {column} FROM {quote('ProcessingTask')} WHERE id = :id"),  # noqa: S608
        {"id": task.id},
    ).scalar_one()


def make_file(task: ProcessingTask, **changes: Any) -> TaskFile:
    values = {
        "security_tag": "tag",
        "storage_provider": "local_filesystem",
        "file_name": "clusters.csv",
        "file_storage_data": "/data/clusters.csv",
        "file_type": "entity/label",
        "mimetype": "text/csv",
    }
    return TaskFile(task, **{**values, **changes})


class TestConstructors:
    def test_processing_task_takes_what_the_seed_says(self) -> None:
        parameters = inspect.signature(ProcessingTask).parameters

        assert {name: parameter.default for name, parameter in parameters.items() if name != "task_name"} == {
            "started_at": parameters["started_at"].default,
            "finished_at": None,
            "parameters": "",
            "data": parameters["data"].default,
            "multi_step": False,
            "steps": parameters["steps"].default,
            "current_step": -1,
            "progress_value": None,
            "progress_start": 0,
            "progress_target": 100,
            "progress_unit": "%",
            "task_status": None,
            "task_log": "",
            "outputs": parameters["outputs"].default,
            "links": parameters["links"].default,
            "subscriptions": parameters["subscriptions"].default,
        }
        assert list(parameters)[:2] == ["task_name", "started_at"]
        assert str(parameters["data"].default) == "<factory>"

    @pytest.mark.parametrize(
        ("made", "names"),
        [
            (Step, "id step_id href ui_href cleared"),
            (
                TaskFile,
                "task security_tag storage_provider file_name file_storage_data file_type mimetype created_at",
            ),
            (TaskLink, "task type href"),
            (TaskUpdateSubscription, "task webhook_href task_href event_type"),
            (WebhookRef, "webhook_href task_href"),
        ],
    )
    def test_the_others_take_what_the_seed_says(self, made: type, names: str) -> None:
        assert list(inspect.signature(made).parameters) == names.split()

    def test_defaults_of_two_objects_are_not_shared(self) -> None:
        one, other = ProcessingTask("one"), ProcessingTask("other")
        one.data["k"] = 1

        assert other.data == {}
        assert one.steps is not other.steps


class TestProcessingTask:
    def test_id_is_made_at_the_flush(self, current: Session) -> None:
        task = ProcessingTask("clustering")
        task.save()
        before = repr(task)
        current.flush()

        assert before == "<ProcessingTask None 'clustering' PENDING>"
        assert repr(task) == f"<ProcessingTask {task.id} 'clustering' PENDING>"

    def test_task_name_is_kept_and_limited(self, task: ProcessingTask) -> None:
        task.task_name = "x" * 500
        task.save(commit=True)

        with pytest.raises(TextTooLongError, match=r"ProcessingTask\.task_name of 501 characters .* 500"):
            task.task_name = "x" * 501
        assert task.task_name == "x" * 500

    def test_a_text_too_long_is_refused_by_the_constructor(self) -> None:
        with pytest.raises(ValueError, match="progress_unit of 101 characters"):
            ProcessingTask("name", progress_unit="x" * 101)

    def test_started_at_is_the_moment_of_the_call(self) -> None:
        before = datetime.now(UTC)

        task = ProcessingTask("clustering")

        assert before <= task.started_at <= datetime.now(UTC)

    def test_started_at_is_aware_utc_after_reading(self, task: ProcessingTask) -> None:
        zone = timezone(timedelta(hours=5))
        task.started_at = datetime(2026, 3, 29, 2, 30, tzinfo=zone)
        task.save(commit=True)

        read = ProcessingTask.get_by_id(task.id)

        assert read is not None
        assert read.started_at == datetime(2026, 3, 28, 21, 30, tzinfo=UTC)
        assert read.started_at.tzinfo is UTC

    def test_started_at_takes_a_naive_value_as_utc(self, task: ProcessingTask) -> None:
        task.started_at = datetime(2026, 1, 2, 3, 4)  # noqa: DTZ001

        assert task.started_at == datetime(2026, 1, 2, 3, 4, tzinfo=UTC)

    def test_started_at_refuses_what_is_no_moment(self, task: ProcessingTask) -> None:
        with pytest.raises(TypeError, match="started_at is a datetime, not str 'today'"):
            task.started_at = "today"  # type: ignore[assignment]

    def test_finished_at_is_none_at_first(self, task: ProcessingTask) -> None:
        assert task.finished_at is None

    def test_parameters_are_text(self, task: ProcessingTask) -> None:
        task.parameters = '{"k": 4, "name": "ä𝄞"}'
        task.save(commit=True)

        read = ProcessingTask.get_by_id(task.id)

        assert read is not None
        assert read.parameters == '{"k": 4, "name": "ä𝄞"}'

    def test_data_is_a_dict_by_default(self, task: ProcessingTask) -> None:
        assert task.data == {}
        assert isinstance(task.data, dict)

    def test_multi_step_is_false_at_first(self, task: ProcessingTask) -> None:
        assert task.multi_step is False

    def test_steps_is_an_ordering_list(self, task: ProcessingTask) -> None:
        assert isinstance(task.steps, OrderingList)
        assert list(task.steps) == []

    def test_current_step_is_minus_one_at_first(self, task: ProcessingTask) -> None:
        assert task.current_step == -1

    def test_progress_value_is_none_at_first_and_a_float_later(self, task: ProcessingTask) -> None:
        assert task.progress_value is None

        task.progress_value = 0
        task.save(commit=True)
        read = ProcessingTask.get_by_id(task.id)

        assert read is not None
        assert (read.progress_value, type(read.progress_value)) == (0.0, float)

    @pytest.mark.parametrize("value", ["x", "7", float("nan"), float("inf"), True, object()])
    def test_progress_value_refuses_what_is_no_number(self, task: ProcessingTask, value: Any) -> None:
        with pytest.raises(ProgressError, match=r"progress_value .* is no finite number"):
            task.progress_value = value

    def test_progress_start_target_and_unit_have_defaults(self, task: ProcessingTask) -> None:
        assert (task.progress_start, task.progress_target, task.progress_unit) == (0, 100, "%")

    def test_task_status_is_none_at_first(self, task: ProcessingTask) -> None:
        assert task.task_status is None

    def test_task_status_takes_failure_as_error(self, task: ProcessingTask) -> None:
        task.task_status = "FAILURE"
        assert task.task_status == "ERROR"

        task.save(commit=True)

        assert task.status == "ERROR"

    @pytest.mark.parametrize("word", ["DONE", "success", "", 1, "REVOKED"])
    def test_task_status_refuses_other_words(self, task: ProcessingTask, word: Any) -> None:
        with pytest.raises(StatusError, match="is no task status"):
            task.task_status = word
        assert task.task_status is None

    def test_task_status_is_stored_as_the_word_that_is_set(
        self, current: Session, task: ProcessingTask, install_sessions: Callable[..., Sessions], database: Any
    ) -> None:
        install_sessions(database, error_status="FAILURE")
        task.task_status = "ERROR"
        current.commit()

        assert task.task_status == "FAILURE"
        assert stored(current, "task_status", task) == "FAILURE"

        install_sessions(database, error_status="ERROR")
        current.expire(task)
        assert task.task_status == "ERROR"

    def test_task_log_is_empty_at_first(self, task: ProcessingTask) -> None:
        assert task.task_log == ""

    def test_outputs_hold_the_files(self, task: ProcessingTask) -> None:
        file = make_file(task)
        file.save(commit=True)

        assert task.outputs == [file]

    def test_links_hold_the_links(self, current: Session, task: ProcessingTask) -> None:
        link = TaskLink(task, "of-weights", "https://plugin.example/weights")
        current.add(link)
        current.commit()

        assert task.links == [link]

    def test_subscriptions_hold_the_subscriptions(self, task: ProcessingTask) -> None:
        subscription = TaskUpdateSubscription(task, "https://me.example/hook", "https://plugin.example/tasks/1/")
        subscription.save(commit=True)

        assert task.subscriptions == [subscription]

    def test_save_adds_to_the_current_session(self, current: Session) -> None:
        task = ProcessingTask("clustering")

        task.save()

        assert task in current.new
        current.rollback()
        assert task.id is None

    def test_save_commits_when_asked_by_position_too(self, current: Session, elsewhere: MakeSession) -> None:
        task = ProcessingTask("clustering")

        task.save(True)

        assert elsewhere().get(ProcessingTask, task.id) is not None

    def test_save_uses_the_session_that_the_task_is_in(self, task: ProcessingTask, elsewhere: MakeSession) -> None:
        other = elsewhere()
        found = other.get_one(ProcessingTask, task.id)
        found.parameters = "{}"

        found.save(commit=True)

        assert object_session(found) is other
        read = ProcessingTask.get_by_id(task.id)
        assert read is not None
        assert read.parameters == "{}"

    def test_get_by_id_takes_numbers_and_digits(self, task: ProcessingTask) -> None:
        assert ProcessingTask.get_by_id(task.id) is task
        assert ProcessingTask.get_by_id(id_=str(task.id)) is task

    @pytest.mark.parametrize(
        "id_",
        [
            None,
            "",
            "x",
            "1.0",
            "-1",
            "+1",
            " 1",
            "\N{ARABIC-INDIC DIGIT ONE}",
            "²",
            True,
            1.0,
            b"1",
            -1,
            2**31,
            "9" * 30,
        ],
    )
    def test_get_by_id_gives_none_for_what_is_no_id(self, task: ProcessingTask, id_: Any) -> None:
        assert ProcessingTask.get_by_id(id_) is None

    def test_get_by_id_gives_none_for_an_unknown_id(self, task: ProcessingTask) -> None:
        assert ProcessingTask.get_by_id(task.id + 1) is None

    def test_get_by_id_reads_the_row_anew(self, task: ProcessingTask, elsewhere: MakeSession) -> None:
        assert (task.outputs, task.data, task.task_log) == ([], {}, "")
        other = elsewhere()
        theirs = other.get_one(ProcessingTask, task.id)
        theirs.task_status = "SUCCESS"
        theirs.data["k"] = 1
        theirs.task_log = "done"
        other.add(make_file(theirs))
        other.commit()

        read = ProcessingTask.get_by_id(task.id)

        assert read is task
        assert (task.status, task.data, task.task_log) == ("SUCCESS", {"k": 1}, "done")
        assert [file.file_name for file in task.outputs] == ["clusters.csv"]

    def test_get_by_id_reads_steps_anew(self, task: ProcessingTask, elsewhere: MakeSession) -> None:
        task.add_next_step("href", "ui", "k", commit=True)
        other = elsewhere()
        other.get_one(ProcessingTask, task.id).clear_previous_step(commit=True)
        step = task.steps[0]
        before = step.cleared

        ProcessingTask.get_by_id(task.id)

        assert (before, step.cleared) == (False, True)
        assert task.steps == [step]

    def test_get_by_id_flushes_unsaved_changes_first(self, task: ProcessingTask) -> None:
        task.parameters = "changed"
        task.data["k"] = [1]
        task.add_task_log_entry("line")

        read = ProcessingTask.get_by_id(task.id)

        assert read is not None
        assert (read.parameters, read.data, read.task_log) == ("changed", {"k": [1]}, "line")

    def test_get_by_id_leaves_no_transaction_open_outside_of_everything(
        self, task: ProcessingTask, database: Any, install_sessions: Callable[..., Sessions]
    ) -> None:
        session = install_sessions(database).current

        read = ProcessingTask.get_by_id(task.id)
        assert read is not None
        assert (read.steps, read.outputs, read.task_log) == ([], [], "")

        assert not session.in_transaction()
        session.close()

    def test_is_finished_says_whether_it_has_ended(self, task: ProcessingTask) -> None:
        before = task.is_finished
        task.finished_at = datetime.now(UTC)

        assert (before, task.is_finished) == (False, True)

    def test_is_ok_needs_the_end_and_the_word(self) -> None:
        end = datetime.now(UTC)

        assert ProcessingTask("name", task_status="SUCCESS", finished_at=end).is_ok
        assert not ProcessingTask("name", task_status="SUCCESS").is_ok
        assert not ProcessingTask("name", task_status="ERROR", finished_at=end).is_ok
        assert not ProcessingTask("name", finished_at=end).is_ok

    def test_status_is_pending_until_the_end_and_unknown_without_a_word(self) -> None:
        end = datetime.now(UTC)

        assert ProcessingTask("name").status == "PENDING"
        assert ProcessingTask("name", task_status="SUCCESS").status == "PENDING"
        assert ProcessingTask("name", finished_at=end).status == "UNKNOWN"
        assert ProcessingTask("name", finished_at=end, task_status="ERROR").status == "ERROR"

    def test_repr_shows_no_parameters_and_asks_no_database(self, current: Session, task: ProcessingTask) -> None:
        task.data["password"] = "hunter2"
        task.parameters = "hunter2"

        assert repr(task) == f"<ProcessingTask {task.id} 'clustering' PENDING>"

        current.commit()
        number = task.id
        current.expire(task)
        current.expunge(task)
        assert repr(task) == "<ProcessingTask None>"
        assert number

    def test_members_can_be_used_in_queries(self, current: Session, task: ProcessingTask) -> None:
        task.add_task_log_entry("needle")
        current.flush()

        found = current.scalars(
            select(ProcessingTask).where(
                ProcessingTask.task_log.contains("needle"), ProcessingTask.task_name == "clustering"
            )
        ).all()

        assert found == [task]

    def test_deleting_a_task_takes_along_what_belongs_to_it(self, current: Session, task: ProcessingTask) -> None:
        task.add_next_step("href", "ui", "k")
        current.add_all([make_file(task), TaskLink(task, "type", "href")])
        TaskUpdateSubscription(task, "hook", "source").save(commit=True)

        current.delete(task)
        current.commit()

        for cls in (ProcessingTask, Step, TaskFile, TaskLink, TaskUpdateSubscription):
            assert current.scalars(select(cls)).all() == []


class TestStep:
    def test_id_names_the_task(self, task: ProcessingTask) -> None:
        task.add_next_step("href", "ui", "k", commit=True)

        assert task.steps[0].id == task.id

    def test_step_id_href_ui_href_and_number_are_kept(self, task: ProcessingTask) -> None:
        task.add_next_step("https://p.example/k", "https://p.example/ui", "step1.step2b", commit=True)

        step = task.steps[0]

        assert (step.number, step.step_id) == (0, "step1.step2b")
        assert (step.href, step.ui_href) == ("https://p.example/k", "https://p.example/ui")

    def test_cleared_is_false_by_default(self) -> None:
        assert Step(1, "k", "href", "ui").cleared is False

    def test_texts_are_limited(self) -> None:
        with pytest.raises(TextTooLongError, match=r"Step\.href of 501 characters"):
            Step(1, "k", "x" * 501, "ui")

    def test_repr_is_short(self) -> None:
        assert repr(Step(1, "k", "href", "ui")) == "<Step None of 1 'k'>"


class TestTaskFile:
    def test_created_at_is_the_moment_of_the_call_in_utc(self, task: ProcessingTask) -> None:
        before = datetime.now(UTC)
        file = make_file(task)
        assert before <= file.created_at <= datetime.now(UTC)

        file.save(commit=True)
        read = TaskFile.get_by_id(file.id)

        assert read is not None
        assert read.created_at.tzinfo is UTC

    def test_all_members_are_kept(self, task: ProcessingTask, elsewhere: MakeSession) -> None:
        file = make_file(task)
        file.save(commit=True)

        read = elsewhere().get_one(TaskFile, file.id)

        assert read.security_tag == "tag"
        assert read.storage_provider == "local_filesystem"
        assert read.file_name == "clusters.csv"
        assert read.file_storage_data == "/data/clusters.csv"
        assert read.file_type == "entity/label"
        assert read.mimetype == "text/csv"
        assert read.task_id == task.id
        assert read.task.task_name == "clustering"

    def test_mimetype_is_none_by_default(self, task: ProcessingTask) -> None:
        assert TaskFile(task, "tag", "provider", "name", "data", None).mimetype is None

    def test_task_needs_no_flush_first(self, current: Session) -> None:
        task = ProcessingTask("clustering")
        file = make_file(task)

        file.save(commit=True)

        assert task.id is not None
        assert file.task_id == task.id
        assert task.outputs == [file]

    def test_task_of_another_session_is_refused(self, task: ProcessingTask, elsewhere: MakeSession) -> None:
        theirs = elsewhere().get_one(ProcessingTask, task.id)
        file = make_file(theirs)

        with pytest.raises(InvalidRequestError):
            file.save()

    def test_get_by_id_takes_numbers_and_digits(self, task: ProcessingTask) -> None:
        file = make_file(task)
        file.save(commit=True)

        assert TaskFile.get_by_id(file.id) is file
        assert TaskFile.get_by_id(str(file.id)) is file
        assert TaskFile.get_by_id(file.id + 1) is None
        assert TaskFile.get_by_id("x") is None

    def test_get_task_result_files_leaves_out_what_is_no_result(self, task: ProcessingTask) -> None:
        result, second = make_file(task), make_file(task, file_name="b.csv")
        for file in (result, make_file(task, file_type="temp-file"), make_file(task, file_type=None), second):
            file.save()

        assert TaskFile.get_task_result_files(task) == [result, second]
        assert TaskFile.get_task_result_files(task.id) == [result, second]
        assert TaskFile.get_task_result_files(task.id + 1) == []

    def test_get_task_result_files_of_a_task_not_saved_is_empty(self, current: Session) -> None:
        assert TaskFile.get_task_result_files(ProcessingTask("new")) == []

    def test_texts_are_limited(self, task: ProcessingTask) -> None:
        with pytest.raises(TextTooLongError, match=r"TaskFile\.security_tag of 65 characters .* 64"):
            make_file(task, security_tag="x" * 65)


class TestTaskLink:
    def test_all_members_are_kept(self, current: Session, task: ProcessingTask, elsewhere: MakeSession) -> None:
        link = TaskLink(task, type="of-weights", href="https://plugin.example/weights")
        current.add(link)
        current.commit()

        read = elsewhere().get_one(TaskLink, link.id)

        assert (read.type, read.href, read.task_id) == ("of-weights", "https://plugin.example/weights", task.id)
        assert read.task.id == task.id

    def test_texts_are_limited(self, task: ProcessingTask) -> None:
        with pytest.raises(TextTooLongError, match=r"TaskLink\.type of 65 characters"):
            TaskLink(task, "x" * 65, "href")


class TestTaskUpdateSubscription:
    @pytest.fixture
    def subscribed(self, current: Session, task: ProcessingTask) -> ProcessingTask:
        for hook, event_type in [("a", None), ("b", "status"), ("c", "details"), ("a", "steps")]:
            TaskUpdateSubscription(task, webhook_href=hook, task_href=f"task-{hook}", event_type=event_type).save()
        other = ProcessingTask("other")
        TaskUpdateSubscription(other, "a", "task-a").save(commit=True)
        return task

    def test_all_members_are_kept(self, task: ProcessingTask, elsewhere: MakeSession) -> None:
        subscription = TaskUpdateSubscription(task, "https://me.example/hook", "https://p.example/tasks/1/", "steps")
        subscription.save(commit=True)

        read = elsewhere().get_one(TaskUpdateSubscription, subscription.id)

        assert (read.webhook_href, read.task_href) == ("https://me.example/hook", "https://p.example/tasks/1/")
        assert (read.event_type, read.task_id, read.task.id) == ("steps", task.id, task.id)

    def test_event_type_is_none_by_default(self, task: ProcessingTask) -> None:
        assert TaskUpdateSubscription(task, "hook", "source").event_type is None

    def test_get_by_task_and_event_matches_rows_without_type_too(self, subscribed: ProcessingTask) -> None:
        found = TaskUpdateSubscription.get_by_task_and_event(subscribed, "status")

        assert found == [WebhookRef("a", "task-a"), WebhookRef("b", "task-b")]
        assert found == TaskUpdateSubscription.get_by_task_and_event(subscribed.id, event="status")

    def test_get_by_task_and_event_without_event_matches_all(self, subscribed: ProcessingTask) -> None:
        found = TaskUpdateSubscription.get_by_task_and_event(subscribed)

        assert [ref.webhook_href for ref in found] == ["a", "b", "c"], "each webhook once, though one has two rows"
        assert found[1].task_href == "task-b"

    def test_get_by_task_and_subscriber_matches_all_by_default(self, subscribed: ProcessingTask) -> None:
        found = TaskUpdateSubscription.get_by_task_and_subscriber(subscribed, "a")

        assert [subscription.event_type for subscription in found] == [None, "steps"]

    def test_get_by_task_and_subscriber_none_means_without_type(self, subscribed: ProcessingTask) -> None:
        found = TaskUpdateSubscription.get_by_task_and_subscriber(subscribed.id, "a", event=None)

        assert [subscription.event_type for subscription in found] == [None]

    def test_get_by_task_and_subscriber_matches_one_type(self, subscribed: ProcessingTask) -> None:
        found = TaskUpdateSubscription.get_by_task_and_subscriber(subscribed, "a", "steps")

        assert [subscription.event_type for subscription in found] == ["steps"]
        assert TaskUpdateSubscription.get_by_task_and_subscriber(subscribed, "a", "status") == []

    def test_texts_are_limited(self, task: ProcessingTask) -> None:
        with pytest.raises(TextTooLongError, match=r"TaskUpdateSubscription\.webhook_href of 501"):
            TaskUpdateSubscription(task, "x" * 501, "source")


class TestWebhookRef:
    def test_is_a_tuple_of_webhook_href_and_task_href(self) -> None:
        assert WebhookRef("hook", "source") == ("hook", "source")
        assert WebhookRef._fields == ("webhook_href", "task_href")
