"""Plugin tasks that report from threads, coroutines and processes of their own."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from qhana_taskstate import ProcessingTask, TaskState, add_log, plugin_task, report_progress, taskstate


def _report(value: int) -> int:
    report_progress(value, target=10, unit="parts")
    add_log(f"part {value}")
    return os.getpid()


@plugin_task
def report_from_threads() -> str:
    """Report from the threads of an executor."""
    with ThreadPoolExecutor(max_workers=1) as executor:
        list(executor.map(_report, [3, 7]))
    raise RuntimeError("so that the progress stays")


#: Where two executions of `report_beside_another` meet.
meet = threading.Barrier(2)


@plugin_task
def report_beside_another(bound: bool) -> None:
    """Report from a thread while another execution runs in the same process."""
    meet.wait(20)
    thread = threading.Thread(target=taskstate.bound(_report) if bound else _report, args=(4,))
    thread.start()
    thread.join()
    meet.wait(20)


@plugin_task
async def count_async(upto: int) -> str:
    """Await, report, and change the row, in tasks of the loop too."""
    task = taskstate.current()
    task.data["session"] = taskstate.session is ProcessingTask._session(task)

    async def part(number: int) -> None:
        await asyncio.sleep(0)
        add_log(f"part {number}")
        report_progress(number, target=upto)

    await asyncio.gather(*(part(number) for number in range(1, upto + 1)))
    await asyncio.to_thread(add_log, "from a thread")
    return "counted"


@plugin_task
async def add_async(left: int, right: int) -> int:
    """Add."""
    await asyncio.sleep(0)
    return left + right


@plugin_task
async def fail_async() -> None:
    """Fail after a pause."""
    taskstate.current().data["lost"] = True
    await asyncio.sleep(0)
    raise ValueError("in the loop")


@plugin_task(bind=True, max_retries=1)
async def retry_async(self: Any) -> str:
    """Work at the second attempt."""
    await asyncio.sleep(0)
    if self.request.retries == 0:
        raise self.retry(countdown=0)
    return "at the second attempt"


def in_child(function: Any) -> int:
    """Run a function in a forked child, and return the exit code that it gives, 99 if it raises."""
    pid = os.fork()
    if pid == 0:
        code = 99
        try:
            code = function()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@plugin_task
def fork_and_report() -> str:
    """Report in a forked child, and use its parent's row and session there; then go on."""
    task = taskstate.current()
    task_id = task.id
    task.data["before"] = 1
    taskstate.session.flush()

    def child() -> int:
        _report(5)
        found = 0
        try:
            task.add_task_log_entry("from the child", commit=True)
        except Exception as exc:
            found += type(exc).__name__ == "ForkedSessionError"
        taskstate.session.rollback()
        with taskstate.session_scope() as session:
            found += 2 * (session.get(ProcessingTask, task_id) is not None)
        return found

    code = in_child(child)
    task.data["after"] = 2
    return f"child {code}"


@plugin_task
def fork_and_return() -> str:
    """Let the child come out of the function as well."""
    pid = os.fork()
    if pid:
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        return f"child {code}"
    return "twice"


@plugin_task
def report_from_processes() -> str:
    """Report from the processes of `multiprocessing`."""
    with multiprocessing.get_context("fork").Pool(2) as pool:
        pids = pool.map(_report, [1, 2])
    taskstate.current().data["own"] = os.getpid() in pids
    return "joined"


def start_in_thread(state: TaskState, signature: Any) -> tuple[threading.Thread, list[int]]:
    """Start a signature in a thread of its own; the list gets the id of the task."""
    found: list[int] = []
    thread = threading.Thread(target=lambda: found.append(state.start(signature).id))
    thread.start()
    return thread, found
