"""The table of shapes and failures: what each canvas must end as, what its log says, and how soon."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from celery import Signature, chain, chord, group, signature
from celery.beat import ScheduleEntry, Scheduler
from celery.schedules import schedule
from celery.worker.request import Request
from sqlalchemy import update

from qhana_taskstate import ProcessingTask
from tests import warm
from tests.apps.canvases import (
    again,
    ask,
    become,
    change_and_send,
    late,
    member,
    note_error,
    plain,
    report_to,
    retrying,
    risky,
    send,
    send_at_the_end,
    send_detached,
    send_from_thread,
    send_what_cannot_be_sent,
    short,
    start_another,
    start_more,
    strict,
    strict_late,
)
from tests.canvas.deployment import Deployment
from tests.waiting import wait_until


@dataclass(frozen=True)
class Scene:
    """Where one row of the table plays: a deployment, and a folder of its own."""

    deployment: Deployment
    folder: Path

    def path(self, name: str = "file") -> str:
        """Name a file in the folder."""
        return str(self.folder / name)

    def touch(self, name: str = "file") -> None:
        """Make a file that members wait for."""
        Path(self.path(name)).touch()

    def seen(self, name: str = "file") -> None:
        """Wait for a file that a member makes."""
        wait_until(f"a member made {name}", Path(self.path(name)).exists, timeout=15)

    def start(self, work: Any, **options: Any) -> ProcessingTask:
        """Start work as a new task, or as work of `task`."""
        return self.deployment.taskstate.start(work, **options)

    def closed(self, task: ProcessingTask, count: int = 1) -> None:
        """Wait until so many executions are closed and none is open."""

        def done() -> bool:
            rows = self.deployment.executions(task.id)
            return len(rows) >= count and all(row.closed_at is not None for row in rows)

        wait_until(f"{count} executions are closed", done, timeout=15)

    def pending(self, task: ProcessingTask) -> None:
        """Assert that the task has not ended."""
        row = ProcessingTask.get_by_id(task.id)
        assert row is not None
        assert (row.status, row.finished_at) == ("PENDING", None)


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        shape: The canvas.
        what: What fails where, or how it is started.
        begin: Starts it, does what happens to it from outside, and returns the task.
        status: How it must end.
        log: A piece of the log that a person can act on.
        seconds: From the return of `begin` to the visible end, at most.
        executions: How many executions it has at its end; None for any number.
        absent: A file that must not be there, since the member that writes it must not run.
        both: Whether the row also runs on SQLite; all run on PostgreSQL.
        settle_seconds: How long what still runs of a failed task may take.
    """

    shape: str
    what: str
    begin: Callable[[Scene], ProcessingTask]
    status: str
    log: str = ""
    seconds: float = 5
    executions: int | None = None
    absent: str | None = None
    both: bool = False
    settle_seconds: float = 10

    def __str__(self) -> str:
        return f"{self.shape}, {self.what}: {self.status} within {self.seconds:g} s"


Way = Callable[[Scene], Any]


def ok(scene: Scene) -> Any:
    """A member that does nothing."""
    return member.si()


def told(what: str, task: Any = member) -> Way:
    """A member that does as it is told, with a file of the scene."""
    return lambda scene: task.si(what, scene.path())


def unregistered(scene: Scene) -> Signature:
    """A member that no worker knows."""
    return signature("tests.nowhere", immutable=True, app=scene.deployment.app)


def expired(scene: Scene) -> Any:
    """A member whose time is over before a worker gets it."""
    return member.si().set(expires=datetime.now(UTC) - timedelta(seconds=1))


def revoked(scene: Scene) -> Any:
    """A member that was revoked before it was sent."""
    celery_id = str(uuid4())
    scene.deployment.app.control.revoke(celery_id, reply=True, timeout=2, limit=1)
    return member.si().set(task_id=celery_id)


def bad(scene: Scene) -> Any:
    """A member that raises."""
    return member.si("raise")


# ---- Shapes: how many members, how to build them, and how many executions there are if all goes well.

Build = Callable[..., Any]

SHAPES: dict[str, tuple[int, Build, int]] = {
    "single": (1, lambda a: a, 1),
    "chain": (3, lambda a, b, c: chain(a, b, c), 3),
    "group": (3, lambda a, b, c: group(a, b, c), 3),
    "chord": (3, lambda a, b, body: chord([a, b], body), 3),
    "chord in a chain": (5, lambda a, b, c, body, z: chain(a, chord([b, c], body), z), 5),
    "chain in a chord": (4, lambda a, b, c, body: chord([chain(a, b), c], body), 4),
    "chord in a chord": (5, lambda a, b, inner, c, body: chord([chord([a, b], inner), c], body), 5),
    "chain in a group": (3, lambda a, b, c: group(chain(a, b), c), 3),
    "chord in a chain in a group": (
        6,
        lambda a, b, c, body, z, d: group(chain(a, chord([b, c], body), z), d),
        6,
    ),
    "link in a chord": (4, lambda a, b, c, body: chord([_linked(a, b), c], body), 4),
    "group in a group": (3, lambda a, b, c: group(group(a, b), c), 3),
    "group after a group": (4, lambda a, b, c, d: chain(group(a, b), group(c, d)), 4),
    "chord whose body sends more": (4, lambda a, b, c, d: chord([a, b], send.si([chain(c, d)])), 5),
    "replaced by a task": (1, lambda a: become.si(a), 2),
    "replaced by a chain": (2, lambda a, b: become.si(chain(a, b)), 3),
    "replaced by a group": (2, lambda a, b: become.si(group(a, b)), 4),
    "replaced by a chord": (3, lambda a, b, body: become.si(chord([a, b], body)), 4),
    "replaced by a chord and a chain": (
        5,
        lambda a, b, body, c, d: become.si(chain(chord([a, b], body), chain(c, d))),
        6,
    ),
    "replaced by a chord that ends in a chain": (4, lambda a, b, c, d: become.si(chord([a, b], chain(c, d))), 5),
    "replaced twice": (3, lambda a, b, c: become.si(chain(a, become.si(chain(b, c)))), 5),
    "replaced in a chord": (3, lambda a, b, body: chord([become.si(chain(a, b)), a.clone()], body), 5),
    "delay, three levels deep": (3, lambda a, b, c: send.si([send.si([send.si([a]), b]), c]), 6),
    "link": (2, lambda a, b: _linked(a, b), 2),
    "two links": (3, lambda a, b, c: _linked(a, b, c), 3),
}


def _linked(first: Signature, *callbacks: Signature) -> Signature:
    for callback in callbacks:
        # Celery links a callback once, and two members that do the same are equal to it but for their ids.
        first.link(callback.set(task_id=str(uuid4())))
    return first


def _begin(shape: str, at: int | None, way: Way = ok, others: Way = ok) -> Callable[[Scene], ProcessingTask]:
    count, build, _ = SHAPES[shape]
    return lambda scene: scene.start(build(*((way if at == place else others)(scene) for place in range(count))))


def _shapes() -> Iterator[Row]:
    """Each shape, with nothing that fails, with a retry, and with an exception in any position."""
    for shape, (count, _, executions) in SHAPES.items():
        yield Row(shape, "all is well", _begin(shape, None), "SUCCESS", "", 5, executions, both=True)
        plainly = _begin(shape, None, others=told("ok", plain))
        yield Row(shape, "no plugin tasks", plainly, "SUCCESS", "", 5, executions)
        plain_last = _begin(shape, count - 1, told("raise", plain), told("ok", plain))
        yield Row(shape, "no plugin tasks, the last raises", plain_last, "ERROR", "ValueError: on purpose", 5)
        tired = _begin(shape, 0, told("retry always"))
        yield Row(shape, "its first runs out of retries", tired, "ERROR", "ConnectionError: attempt 2", 5)
        retried = _begin(shape, count - 1, told("retry once"))
        yield Row(shape, "its last retries once", retried, "SUCCESS", "", 5, executions + 1)
        for at in range(count):
            what = f"{at + 1} of {count} raises"
            yield Row(shape, what, _begin(shape, at, bad), "ERROR", "ValueError: on purpose", 5, both=at == 0)


# ---- Ways to fail, in these positions of these shapes.

PLACES: tuple[tuple[str, int], ...] = (("single", 0), ("chain", 0), ("chain", 1), ("chord", 0), ("chord", 2))

#: The parent of a prefork pool looks for dead children every five seconds (billiard 4.3), and the machine may be busy.
_LOST_SECONDS = 12

#: What it is called, the member, the status, the log, the seconds.
WAYS: tuple[tuple[str, Way, str, str, float], ...] = (
    ("retries and works", told("retry once"), "SUCCESS", "", 5),
    ("runs out of retries", told("retry always"), "ERROR", "ConnectionError: attempt 2", 5),
    ("raises Ignore", told("ignore"), "SUCCESS", "", 5),
    ("raises Reject", told("reject"), "ERROR", "unwanted", 5),
    ("raises Reject, late ack", told("reject", late), "ERROR", "unwanted", 5),
    ("is put back once, late ack", told("reject and requeue once", late), "SUCCESS", "", 5),
    ("has an unwritable result", told("unwritable result"), "ERROR", "Unwritable", 5),
    ("is not registered", unregistered, "ERROR", "knows no task 'tests.nowhere'", 5),
    ("expires in the queue", expired, "ERROR", "expired before a worker could begin it", 5),
    ("was revoked", revoked, "ERROR", "revoked before it began", 5),
    ("meets its soft limit", told("sleep", short), "ERROR", "SoftTimeLimitExceeded", 5),
    ("tidies up at its soft limit", told("sleep and tidy up", short), "SUCCESS", "", 5),
    ("meets its hard limit", told("sleep", strict), "ERROR", "TimeLimitExceeded", _LOST_SECONDS),
    ("meets its hard limit, late ack", told("sleep", strict_late), "ERROR", "TimeLimitExceeded", _LOST_SECONDS),
    ("is cancelled by asyncio", told("cancel"), "ERROR", "CancelledError", _LOST_SECONDS),
    ("is interrupted", told("interrupt"), "ERROR", "KeyboardInterrupt", _LOST_SECONDS),
    ("calls sys.exit", told("exit"), "ERROR", "WorkerLostError", _LOST_SECONDS),
    ("calls sys.exit, late ack", told("exit", late), "ERROR", "WorkerLostError", _LOST_SECONDS),
    ("loses its child", told("kill"), "ERROR", "WorkerLostError", _LOST_SECONDS),
    ("loses its child, late ack", told("kill", late), "ERROR", "WorkerLostError", _LOST_SECONDS),
    ("loses its child and comes again", told("kill once", again), "SUCCESS", "", _LOST_SECONDS),
    *(
        # New in celery 5.7.
        (
            ("loses its child and retries", told("kill once", retrying), "SUCCESS", "", 2 * _LOST_SECONDS),
            (
                "loses its child and runs out of retries",
                told("kill", retrying),
                "ERROR",
                "WorkerLostError",
                2 * _LOST_SECONDS,
            ),
        )
        if hasattr(Request, "_retry_worker_lost")
        else ()
    ),
)

#: Ways that take a second or more each: only in these places.
SLOW_PLACES: tuple[tuple[str, int], ...] = (("single", 0), ("chain", 1), ("chord", 0))


def _failures() -> Iterator[Row]:
    for what, way, status, log, seconds in WAYS:
        for shape, at in PLACES if seconds <= 5 and "limit" not in what else SLOW_PLACES:
            count = SHAPES[shape][0]
            place = f"{at + 1} of {count} {what}" if count > 1 else what
            # Celery leaves the rest of a canvas unsent after Ignore: what was sent is over, so the task is.
            yield Row(shape, place, _begin(shape, at, way), status, log, seconds, both=shape == "single")


# ---- What happens from outside, and the other ways to start.


def _terminated(scene: Scene) -> ProcessingTask:
    celery_id = str(uuid4())
    task = scene.start(chain(member.si("sleep", scene.path()).set(task_id=celery_id), member.si()))
    scene.seen()
    scene.deployment.app.control.revoke(celery_id, terminate=True)
    return task


def _cancelled_before(scene: Scene) -> ProcessingTask:
    task = scene.start(member.si("write", scene.path("never")), countdown=1)
    assert scene.deployment.taskstate.cancel(task, reason="not needed")
    return task


def _cancelled_between(scene: Scene) -> ProcessingTask:
    task = scene.start(chain(member.si(), member.si("write", scene.path("never")).set(countdown=1)))
    wait_until("the second is known", lambda: len(scene.deployment.executions(task.id)) == 2, timeout=10)
    assert scene.deployment.taskstate.cancel(task, reason="not needed")
    return task


def _cancelled_during(scene: Scene) -> ProcessingTask:
    first = _linked(member.si("wait", scene.path("go")), member.si("write", scene.path("never")))
    task = scene.start(chain(member.si("write", scene.path("begun")), first))
    scene.seen("begun")
    assert scene.deployment.taskstate.cancel(task, reason="not needed")
    scene.touch("go")
    return task


def _cancelled_and_terminated(scene: Scene) -> ProcessingTask:
    task = scene.start(chord([member.si("sleep", scene.path()), member.si()], member.si("write", scene.path("never"))))
    scene.seen()
    assert scene.deployment.taskstate.cancel(task, terminate=True, reason="not needed")
    return task


def _by_hand(scene: Scene) -> ProcessingTask:
    with scene.deployment.taskstate.session_scope():
        row = ProcessingTask("by hand")
        row.save(commit=True)
        row_id = row.id
    found = ProcessingTask.get_by_id(row_id)
    assert found is not None
    return found


def _by_db_id(scene: Scene) -> ProcessingTask:
    task = _by_hand(scene)
    report_to.apply_async(kwargs={"text": "for", "db_id": str(task.id)})
    return task


def _canvas_by_db_id(scene: Scene) -> ProcessingTask:
    task = _by_hand(scene)
    _linked(report_to.si("for", db_id=task.id), member.si("raise")).apply_async()
    return task


def _found(scene: Scene, celery_id: str) -> ProcessingTask:
    task = wait_until("the task is found", lambda: scene.deployment.taskstate.find(celery_id), timeout=10)
    assert task is not None
    return task


def _by_stranger(scene: Scene) -> ProcessingTask:
    """A client that knows the broker and the task's name, and nothing of this package."""
    conf = scene.deployment.app.conf
    code = (
        "from celery import Celery\n"
        f"app = Celery(broker={conf.broker_url!r})\n"
        f"print(app.send_task({member.name!r}, ['raise'], queue={conf.task_default_queue!r}).id)"
    )
    sent = warm.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30)
    return _found(scene, sent.stdout.strip())


def _by_beat(scene: Scene) -> ProcessingTask:
    app = scene.deployment.app
    entry = ScheduleEntry("now", member.name, args=("raise",), schedule=schedule(1, app=app), app=app)
    return _found(scene, Scheduler(app, lazy=True).apply_async(entry, advance=False).id)


def _second_start(scene: Scene) -> ProcessingTask:
    task = scene.start(chain(member.si("wait", scene.path()), member.si()))
    scene.start(chord([member.si(), member.si()], member.si()), task=task)
    scene.touch()
    return task


def _several_at_once(scene: Scene) -> ProcessingTask:
    task = scene.start(member.si("wait", scene.path()))
    for _ in range(4):
        scene.start(group(member.si(), chain(member.si(), member.si())), task=task)
    scene.touch()
    return task


def _one_of_several_fails(scene: Scene) -> ProcessingTask:
    task = scene.start(member.si("wait", scene.path()))
    scene.start(group(member.si(), bad(scene)), task=task)
    scene.touch()
    return task


def _answered(scene: Scene) -> ProcessingTask:
    task = scene.start(chain(member.si(), ask.si("k")))
    scene.closed(task, 2)
    scene.pending(task)
    return scene.start(group(member.si(), member.si()), task=task, answers="k")


def _cleared_then_published(scene: Scene) -> ProcessingTask:
    task = scene.start(ask.si("k"))
    scene.closed(task)
    with scene.deployment.taskstate.session_scope():
        row = ProcessingTask.get_by_id(task.id)
        assert row is not None
        row.clear_previous_step()
        row.save(commit=True)
    scene.pending(task)
    report_to.apply_async(kwargs={"text": "next", "db_id": task.id})
    return task


def _open_ended(scene: Scene, status: str | None) -> ProcessingTask:
    task = scene.start(group(member.si(), member.si()), finishes=False)
    scene.closed(task, 2)
    scene.pending(task)
    if status is None:
        return scene.start(member.si(), task=task, finishes=True)
    assert scene.deployment.taskstate.finish(task.id, status=status, log="the other plugin is done")
    return task


def _ended_by_a_row(scene: Scene) -> ProcessingTask:
    task = scene.start(member.si("wait", scene.path()))
    with scene.deployment.taskstate.session_scope():
        row = ProcessingTask.get_by_id(task.id)
        assert row is not None
        row.task_status = "FAILURE"
        row.add_task_log_entry("the route gave up")
        row.save(commit=True)
    scene.touch()
    return task


def _detached(scene: Scene) -> ProcessingTask:
    task = scene.start(send_detached.si(scene.path()))
    scene.deployment.taskstate.wait(task, timeout=10)
    scene.touch()
    return task


def _eagerly(work: Any) -> Callable[[Scene], ProcessingTask]:
    def begin(scene: Scene) -> ProcessingTask:
        conf = scene.deployment.app.conf
        conf.task_always_eager = True
        try:
            return scene.start(work(scene))
        finally:
            conf.task_always_eager = False

    return begin


def _revoked_before_its_eta(scene: Scene) -> ProcessingTask:
    celery_id = str(uuid4())
    task = scene.start(member.si("write", scene.path("never")), task_id=celery_id, countdown=2)
    scene.deployment.app.control.revoke(celery_id, reply=True, timeout=2, limit=1)
    return task


def _row_held(scene: Scene) -> ProcessingTask:
    """Hold the row of a task, as an uncommitted change of a route does, while the task ends."""
    task = scene.start(member.si("wait", scene.path()))
    with scene.deployment.taskstate.database.engine.connect() as connection:
        connection.execute(update(ProcessingTask).where(ProcessingTask.id == task.id).values(parameters="held"))
        scene.touch()
        wait_until("the end is decided", lambda: scene.deployment.job(task.id).end_status, timeout=10)
        time.sleep(0.2)
        connection.rollback()
    return task


def _on_error(signature_: Signature) -> Signature:
    found: Signature = signature_.on_error(note_error.s())
    return found


def _into_group(scene: Scene, way: Way) -> Signature:
    return chord([ok(scene), ok(scene)], group(ok(scene), way(scene)))


def _unfit(scene: Scene) -> ProcessingTask:
    unfit = plain.si("ok", "file", "too", "many")  # type: ignore[call-arg]  # this is what is tried
    return scene.start(chain(ok(scene), unfit))


def _awkward_header(scene: Scene) -> ProcessingTask:
    return scene.start(chord([ok(scene), told("raise awkwardly")(scene)], ok(scene)))


def _errback_of_strict(scene: Scene) -> ProcessingTask:
    task = scene.start(_on_error(told("sleep", strict)(scene)))
    named = lambda: [row for row in scene.deployment.executions(task.id) if row.name == note_error.name]  # noqa: E731
    wait_until("the errback belongs to the task", named, timeout=6)
    return task


def _plugin_errback(scene: Scene) -> ProcessingTask:
    task = scene.start(told("raise", plain)(scene).on_error(member.si("write", scene.path())))
    sent = lambda: [row for row in scene.deployment.executions(task.id) if row.name == member.name]  # noqa: E731
    wait_until("the errback was sent", sent, timeout=3)
    return task


def _in(seconds: float) -> datetime:
    return datetime.now(UTC) + timedelta(seconds=seconds)


def alone(task: Any) -> Callable[[Scene], ProcessingTask]:
    """Start one task without arguments."""
    return lambda scene: scene.start(task.si())


def _chunked(last: int) -> Callable[[Scene], ProcessingTask]:
    parts = [(1,), (2,), (last,)]
    return lambda scene: scene.start(chord(risky.chunks(parts, 1).group(), ok(scene)))


def _replaced_by_chunks(last: int) -> Callable[[Scene], ProcessingTask]:
    return lambda scene: scene.start(become.si(risky.chunks([(1,), (last,)], 1).group()))


def _thousand(fail_at: int | None) -> Callable[[Scene], ProcessingTask]:
    return lambda s: s.start(group(plain.si("raise" if i == fail_at else "ok") for i in range(1000)))


REASON = "cancelled: not needed"

OTHERS = (
    Row("empty group", "nothing is sent", lambda s: s.start(group([])), "SUCCESS", "", 1, 0, both=True),
    Row("empty group in a chain", "nothing is sent", lambda s: s.start(chain(group([]), group([]))), "SUCCESS", "", 5),
    Row("group of 1,000", "all is well", _thousand(None), "SUCCESS", "", 60, 1000),
    Row("group of 1,000", "one raises", _thousand(500), "ERROR", "on purpose", 60, settle_seconds=60),
    Row("chunks", "all is well", lambda s: s.start(risky.chunks([(4, i) for i in range(5)], 2)), "SUCCESS", "", 5, 4),
    Row("chunks", "one raises", lambda s: s.start(risky.chunks([(i, i) for i in range(5)], 2)), "ERROR", "three is"),
    Row("chunks as a group", "one raises", lambda s: s.start(risky.chunks([(3,)], 1).group()), "ERROR", "three is"),
    Row("chunks in a chord", "one raises", _chunked(3), "ERROR", "three is"),
    Row("chunks in a chord", "all is well", _chunked(4), "SUCCESS", "", 5, 4),
    Row("replaced by chunks", "all is well", _replaced_by_chunks(4), "SUCCESS", "", 5),
    Row("replaced by chunks", "one raises", _replaced_by_chunks(3), "ERROR", "three is"),
    Row("map", "all is well", lambda s: s.start(risky.map([1, 2])), "SUCCESS", "", 5, 1),
    Row("map", "one raises", lambda s: s.start(risky.map([1, 2, 3])), "ERROR", "ValueError: three is too many"),
    Row("starmap", "all is well", lambda s: s.start(risky.starmap([(1, 2)])), "SUCCESS", "", 5, 1),
    Row("starmap", "one raises", lambda s: s.start(risky.starmap([(1, 2), (3, 4)])), "ERROR", "three is too many"),
    Row("countdown", "all is well", lambda s: s.start(member.si(), countdown=1), "SUCCESS", "", 5, 1),
    Row("countdown", "raises", lambda s: s.start(bad(s), countdown=1), "ERROR", "on purpose", 5, 1),
    Row("eta", "all is well", lambda s: s.start(member.si(), eta=_in(1)), "SUCCESS", "", 5, 1),
    Row("eta in a chain", "raises", lambda s: s.start(chain(ok(s), bad(s).set(eta=_in(1)))), "ERROR", "on purpose"),
    Row("expires", "in time", lambda s: s.start(member.si(), expires=30), "SUCCESS", "", 5, 1),
    Row("apply_async(db_id=)", "all is well", _by_db_id, "SUCCESS", "for ", 5, 1, both=True),
    Row("apply_async(db_id=) with a link", "link raises", _canvas_by_db_id, "ERROR", "on purpose", 5, 2),
    Row("delay", "all is well", lambda s: _found(s, member.delay().id), "SUCCESS", "", 5, 1, both=True),
    Row("delay", "raises", lambda s: _found(s, member.delay("raise").id), "ERROR", "on purpose", 5, 1),
    Row("send_task", "raises", lambda s: _found(s, s.deployment.app.send_task(member.name, ["raise"]).id), "ERROR"),
    Row("send_task by a stranger", "raises", _by_stranger, "ERROR", "on purpose", 5, 1),
    Row("beat", "raises", _by_beat, "ERROR", "on purpose", 5, 1, both=True),
    Row("second start for the same task", "all is well", _second_start, "SUCCESS", "", 8, 5, both=True),
    Row("five canvases for one task", "all is well", _several_at_once, "SUCCESS", "", 8, 13, both=True),
    Row("two canvases for one task", "the second raises", _one_of_several_fails, "ERROR", "on purpose", 8),
    Row("step", "answered by a group", _answered, "SUCCESS", "", 5, 4, both=True),
    Row("step", "cleared, committed, published", _cleared_then_published, "SUCCESS", "next", 5, 2),
    Row("open-ended", "told to end", lambda s: _open_ended(s, "SUCCESS"), "SUCCESS", "the other plugin", 1, both=True),
    Row("open-ended", "told that it failed", lambda s: _open_ended(s, "ERROR"), "ERROR", "the other plugin", 1),
    Row("open-ended", "closed by more work", lambda s: _open_ended(s, None), "SUCCESS", "", 5, 3),
    Row("open-ended", "raises", lambda s: s.start(bad(s), finishes=False), "ERROR", "on purpose"),
    Row("status set by hand", "while a member runs", _ended_by_a_row, "ERROR", "the route gave up", 1, both=True),
    Row("detached", "the other goes on alone", _detached, "SUCCESS", "", 1, 1),
    Row("bound", "a thread sends", alone(send_from_thread), "SUCCESS", "", 5, 2),
    Row("chord without header", "all is well", lambda s: s.start(chord([], ok(s))), "SUCCESS", "", 5, 1),
    Row("chord with a group as body", "one raises", lambda s: s.start(_into_group(s, bad)), "ERROR", "on purpose"),
    Row("chord with a group as body", "all is well", lambda s: s.start(_into_group(s, ok)), "SUCCESS", "", 5, 4),
    Row("chain", "arguments of its second do not fit", _unfit, "ERROR", "TypeError"),
    Row("single", "awkward exception", lambda s: s.start(told("raise awkwardly")(s)), "ERROR", "AwkwardError: cannot"),
    Row("chord", "awkward exception in the header", _awkward_header, "ERROR", "AwkwardError: cannot be made again"),
    Row("single", "unknown content type", lambda s: s.start(ok(s), serializer="pickle"), "ERROR", "could not read"),
    Row("single", "revoked before its eta", _revoked_before_its_eta, "ERROR", "revoked before", 5, 1, "never"),
    Row("single", "its row is held while it ends", _row_held, "SUCCESS", "", 3, 1),
    Row("sends what cannot be sent", "goes on", alone(send_what_cannot_be_sent), "SUCCESS", "not sent"),
    Row("sends with an open write", "all is well", alone(change_and_send), "SUCCESS", "", 4, 2, both=True),
    Row("sends from after_return", "all is well", alone(send_at_the_end), "SUCCESS", "", 5, 2, both=True),
    Row("starts more for itself", "all is well", alone(start_more), "SUCCESS", "", 5, 2, both=True),
    Row("starts a separate job", "that one raises", alone(start_another), "SUCCESS", "", 5, 1),
    Row("errback", "single raises", lambda s: s.start(_on_error(bad(s))), "ERROR", "on purpose", 5),
    Row("errback", "is a plugin task", _plugin_errback, "ERROR", "on purpose"),
    Row("errback", "single meets its hard limit", _errback_of_strict, "ERROR", "TimeLimitExceeded", 8),
    Row("eager", "single", _eagerly(ok), "SUCCESS", "", 1, 1, both=True),
    Row("eager", "single raises", _eagerly(bad), "ERROR", "on purpose", 1, 1, both=True),
    Row("eager", "raises Ignore", _eagerly(told("ignore")), "SUCCESS", "", 1, 1),
    Row("eager", "raises Reject", _eagerly(told("reject")), "ERROR", "unwanted", 1, 1),
    Row("eager", "chord, header raises", _eagerly(lambda s: chord([ok(s), bad(s)], ok(s))), "ERROR", "on purpose", 1),
    Row("eager", "retries once", _eagerly(told("retry once")), "SUCCESS", "", 1, 2),
    Row("eager", "runs out of retries", _eagerly(told("retry always")), "ERROR", "ConnectionError: attempt 2", 1, 3),
    Row("eager", "replaced by a task", _eagerly(lambda s: become.si(ok(s))), "ERROR", "Never call result.get", 1),
    Row("eager", "two links, one raises", _eagerly(lambda s: _linked(ok(s), ok(s), bad(s))), "ERROR", "on purpose", 1),
    Row("eager", "chain", _eagerly(lambda s: chain(ok(s), ok(s), ok(s))), "SUCCESS", "", 1, 3),
    Row("eager", "chain, second raises", _eagerly(lambda s: chain(ok(s), bad(s), ok(s))), "ERROR", "on purpose", 1, 2),
    Row("eager", "group", _eagerly(lambda s: group(ok(s), ok(s))), "SUCCESS", "", 1, 2),
    Row("eager", "group, second raises", _eagerly(lambda s: group(ok(s), bad(s))), "ERROR", "on purpose", 1),
    Row("eager", "chord", _eagerly(lambda s: chord([ok(s), ok(s)], ok(s))), "SUCCESS", "", 1, 3),
    Row("eager", "chord, body raises", _eagerly(lambda s: chord([ok(s), ok(s)], bad(s))), "ERROR", "on purpose", 1),
    Row("eager", "sends more", _eagerly(lambda s: send.si([ok(s), ok(s)])), "SUCCESS", "", 1, 3),
    Row("chain", "first terminated while it runs", _terminated, "ERROR", "terminated while it ran", 5, 1, both=True),
    Row("single", "cancelled before it began", _cancelled_before, "ERROR", REASON, 1, 1, "never", both=True),
    Row("chain", "cancelled between its members", _cancelled_between, "ERROR", REASON, 1, 2, "never"),
    Row("chain", "cancelled during its second", _cancelled_during, "ERROR", REASON, 1, None, "never", both=True),
    Row("chord", "cancelled and terminated", _cancelled_and_terminated, "ERROR", REASON, 1, 2, "never"),
    Row("single", "put back, early ack", lambda s: s.start(told("reject and requeue once")(s)), "ERROR", "Reject", 3),
)

#: Rows that the package does not pass, as their tests are called (or without the database, for all), and why.
DEFECTS: dict[str, str] = {}

ROWS = (*_shapes(), *_failures(), *OTHERS)


#: What rows of a shape repeat of each other, as far as the version of Celery matters.
_REPETITION = re.compile(r"[2-9] of \d raises|no plugin tasks|its first runs out of retries")


def _on_all_versions(kind: str, row: Row) -> bool:
    """Tell whether a row belongs to the fast set that also runs with other versions."""
    return kind == "postgresql" and row.shape != "group of 1,000" and not _REPETITION.fullmatch(row.what)


def _parameters() -> Iterator[Any]:
    for row in ROWS:
        for kind in ("postgresql", "sqlite") if row.both else ("postgresql",):
            name = f"{kind}: {row}"
            reason = DEFECTS.get(str(row)) or DEFECTS.get(name)
            marks = [pytest.mark.xfail(strict=True, reason=f"defect: {reason}")] if reason else []
            if _on_all_versions(kind, row):
                marks.append(pytest.mark.versions)
            yield pytest.param(kind, row, id=name, marks=marks)


def test_no_two_rows_say_the_same() -> None:
    assert len({str(row) for row in ROWS}) == len(ROWS)
    known = {str(row) for row in ROWS} | {f"sqlite: {row}" for row in ROWS if row.both}
    assert set(DEFECTS) <= known


@pytest.mark.parametrize(("kind", "row"), list(_parameters()))
def test_canvas_ends_as_the_table_says(deployment: Deployment, row: Row, tmp_path: Path) -> None:
    task = row.begin(Scene(deployment, tmp_path))
    began = time.monotonic()

    task = deployment.taskstate.wait(task.id, timeout=row.seconds)

    assert time.monotonic() - began <= row.seconds + 0.5
    assert (task.status, task.is_finished) == (row.status, True)
    assert row.log in task.task_log
    if row.status == "ERROR":
        assert task.task_log.strip()
    deployment.check_end(task, timeout=row.settle_seconds)
    if row.executions is not None:
        assert len(deployment.executions(task.id)) == row.executions
    if row.absent is not None:
        assert not (tmp_path / row.absent).exists()
