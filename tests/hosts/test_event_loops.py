"""`astart` and `await_end`: nobody blocks the event loop, and nobody who waits has a thread."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from celery import chain
from sqlalchemy import event

from qhana_taskstate import ProcessingTask, TaskNotFoundError, TaskState, TaskStateError
from qhana_taskstate import taskstate as process_state
from tests.apps.jobs import ask, fail, say, write_file

#: What a loop that nobody blocks is late at most, in seconds, on a busy machine.
_LATE_SECONDS = 0.5


def _waiting_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "taskstate-waiters"]


@pytest.fixture(autouse=True)
def _thread_ends() -> Iterator[None]:
    yield
    deadline = time.monotonic() + 10
    while _waiting_threads() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert _waiting_threads() == []


async def _longest_delay(until: asyncio.Event) -> float:
    """Return how late a loop was at most that wanted to turn every ten milliseconds."""
    longest = 0.0
    while not until.is_set():
        began = time.monotonic()
        await asyncio.sleep(0.01)
        longest = max(longest, time.monotonic() - began - 0.01)
    return longest


def test_task_is_started_and_its_end_awaited(taskstate: TaskState, taskstate_worker: object, tmp_path: Any) -> None:
    async def main() -> ProcessingTask:
        task = await process_state.astart(chain(say.si("first"), write_file.si(str(tmp_path))), task_name="both")
        assert (task.status, task.task_name) == ("PENDING", "both")
        return await process_state.await_end(task.id, timeout=30)

    task = asyncio.run(main())
    taskstate.close()

    # All of it is read; nothing asks a database any more.
    assert (task.status, task.is_ok, [output.file_name for output in task.outputs]) == ("SUCCESS", True, ["out.csv"])
    assert task.task_log == "written" and task.outputs[0].task is task and list(task.steps) == []


@pytest.mark.databases("sqlite")
class TestWaiting:
    def test_many_wait_with_one_thread_and_one_query_a_turn(
        self, taskstate: TaskState, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(taskstate, "upkeep", lambda **_: None)
        ids = [say.start(str(number)).id for number in range(40)]
        queries: list[str] = []

        async def main() -> int:
            waits = [asyncio.create_task(taskstate.await_end(task_id, timeout=30)) for task_id in ids]
            await asyncio.sleep(0.3)
            before = threading.active_count()
            assert len(_waiting_threads()) == 1
            event.listen(taskstate.database.engine, "before_cursor_execute", lambda *args: queries.append(args[2]))
            await asyncio.sleep(1.2)
            turns = len(queries)
            assert 1 <= turns <= 12 and all(" IN (" in query for query in queries), queries
            for task_id in ids:
                await asyncio.to_thread(taskstate.finish, task_id)
            assert {task.status for task in await asyncio.gather(*waits)} == {"SUCCESS"}
            return before

        before = asyncio.run(main())
        assert before < 20

    def test_loop_turns_while_the_database_lets_a_start_wait(
        self, taskstate: TaskState, migrated_database_url: str
    ) -> None:
        async def main() -> float:
            over = asyncio.Event()
            delay = asyncio.create_task(_longest_delay(over))
            with closing(sqlite3.connect(migrated_database_url.removeprefix("sqlite:///"))) as other:
                other.execute("BEGIN IMMEDIATE")
                start = asyncio.create_task(taskstate.astart(say.s("late")))
                await asyncio.sleep(1)
                assert not start.done()
                other.rollback()
            assert (await start).status == "PENDING"
            over.set()
            return await delay

        assert asyncio.run(main()) < _LATE_SECONDS

    def test_it_ends_in_time_and_says_what_it_saw(self, taskstate: TaskState) -> None:
        task = say.start("never")
        with pytest.raises(TimeoutError, match=f"task {task.id} is still PENDING after 0.2 s"):
            asyncio.run(taskstate.await_end(task, timeout=0.2))

    def test_task_that_is_not_there_is_named(self, taskstate: TaskState) -> None:
        with pytest.raises(TaskNotFoundError, match="4711"):
            asyncio.run(taskstate.await_end(4711, timeout=10))

    def test_wait_that_is_cancelled_is_forgotten(self, taskstate: TaskState) -> None:
        task = say.start("never")

        async def main() -> None:
            wait = asyncio.create_task(taskstate.await_end(task.id))
            await asyncio.sleep(0.2)
            wait.cancel()
            with pytest.raises(asyncio.CancelledError):
                await wait

        asyncio.run(main())

    def test_loops_of_several_threads_share_the_one_thread(self, taskstate: TaskState) -> None:
        ids = [say.start(str(number)).id for number in range(3)]
        found: list[str] = []

        def run(task_id: int) -> None:
            found.append(asyncio.run(taskstate.await_end(task_id, timeout=30)).status)

        threads = [threading.Thread(target=run, args=(task_id,)) for task_id in ids]
        for thread in threads:
            thread.start()
        time.sleep(0.3)
        assert len(_waiting_threads()) == 1
        for task_id in ids:
            taskstate.finish(task_id)
        for thread in threads:
            thread.join()
        assert found == ["SUCCESS"] * 3

    def test_closing_ends_the_waits(self, taskstate: TaskState) -> None:
        task = say.start("never")

        async def main() -> None:
            wait = asyncio.create_task(taskstate.await_end(task.id))
            await asyncio.sleep(0.2)
            await asyncio.to_thread(taskstate.close)
            with pytest.raises(TaskStateError, match="was closed"):
                await wait

        asyncio.run(main())

    def test_failure_of_the_database_reaches_who_waits(
        self, taskstate: TaskState, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        task = say.start("never")

        def refuse(work: object) -> None:
            raise TaskStateError("the database is away")

        monkeypatch.setattr(taskstate.database, "read", refuse)
        with pytest.raises(TaskStateError, match="is away"):
            asyncio.run(taskstate.await_end(task.id, timeout=30))

    def test_lost_work_is_looked_for_while_somebody_waits(
        self, taskstate: TaskState, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        task = say.start("never")
        looked: list[bool] = []

        def look(*, force: bool = True) -> None:
            looked.append(force)
            taskstate.finish(task.id, status="ERROR")

        monkeypatch.setattr(taskstate, "upkeep", look)
        assert asyncio.run(taskstate.await_end(task.id, timeout=30)).status == "ERROR"
        assert looked[0] is False


@pytest.mark.databases("sqlite")
class TestStarting:
    def test_step_is_awaited_and_answered(self, taskstate: TaskState, taskstate_worker: object) -> None:
        async def main() -> list[str]:
            task = await taskstate.astart(ask.s())
            task = await taskstate.await_end(task.id, timeout=30, or_step=True)
            assert (task.is_finished, task.has_uncleared_step) == (False, True)
            await taskstate.astart(say.s("answered"), task=task, answers=task.steps[-1].step_id)
            return (await taskstate.await_end(task, timeout=30)).task_log.splitlines()

        assert asyncio.run(main())[-1] == "answered"

    def test_errors_are_those_of_start(self, taskstate: TaskState) -> None:
        with pytest.raises(TaskNotFoundError):
            asyncio.run(taskstate.astart(say.s(), task=4711))

    def test_failure_is_an_end_as_any(self, taskstate: TaskState, taskstate_worker: object) -> None:
        async def main() -> ProcessingTask:
            return await taskstate.await_end(await taskstate.astart(fail.s("no file")), timeout=30)

        task = asyncio.run(main())
        assert task.status == "ERROR" and "ValueError: no file" in task.task_log
