"""What a task is doing, in one word and in one sentence. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final

from ...states import ERROR_WORDS, ExecutionState, TaskStatus

#: After so many missed heartbeats a running execution counts as silent.
_MISSED_BEATS: Final = 2

#: Most workers or queues that a sentence names.
_NAMED: Final = 3


class ActivityWord(StrEnum):
    """What a task is doing, in one word."""

    #: Work was sent and no worker has begun it.
    QUEUED = "queued"
    #: All of its open work was sent for a later moment.
    DELAYED = "delayed"
    RUNNING = "running"
    #: It ran, and its process has given no sign of life for a while.
    SILENT = "silent"
    #: It failed and will be tried again.
    RETRYING = "retrying"
    #: It waits at a step for input.
    WAITING = "waiting"
    #: Nothing of it is open, and it goes on when work is started from outside.
    PARKED = "parked"
    #: Nothing of it is open, and it stays open until it is told to finish.
    OPEN_ENDED = "open-ended"
    #: Its work is being submitted.
    SUBMITTING = "submitting"
    #: No work was started for it.
    IDLE = "idle"
    #: Nobody gave it to the recorder, which so knows nothing of its work.
    UNTRACKED = "untracked"
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class Activity:
    """What a task is doing.

    Attributes:
        word: In one word, to sort and to count by.
        text: In one sentence for people, without a full stop; one line.
        queues: Where its work waits if it is queued, as far as that is known.
        waiting_since: Since when the oldest of it waits there; aware UTC.
        trouble: Why it does not begin, where that was asked of the workers; it is in the text, too.
    """

    word: ActivityWord
    text: str
    queues: tuple[str, ...] = ()
    waiting_since: datetime | None = None
    trouble: str = ""

    @property
    def wire(self) -> dict[str, Any]:
        """The object of the task resource: `word` and `text`."""
        return {"word": self.word.value, "text": self.text}

    def troubled(self, trouble: str) -> Activity:
        """Return the same with a word about why its work does not begin; the same for an empty one."""
        return replace(self, text=f"{self.text}; {trouble}", trouble=trouble) if trouble else self


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenMessages:
    """Open executions of a task that are alike.

    Attributes:
        state: QUEUED or RUNNING.
        count: How many.
        queue: Where they were routed to; None where that is not known.
        worker: Who runs them, or ran them last.
        retried: They are further attempts.
        handed_back: They were running, and the broker will deliver their messages again.
        published_at: When the first of them was published; None where that is not known.
        due: Earliest moment that the first of them may begin; None is at once. Aware UTC.
        heartbeat_at: Newest sign of life of any of them; aware UTC.
    """

    state: str
    count: int = 1
    queue: str | None = None
    worker: str | None = None
    retried: bool = False
    handed_back: bool = False
    published_at: datetime | None = None
    due: datetime | None = None
    heartbeat_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is known of a task.

    Attributes:
        status: Its status word.
        finished: It has ended.
        tracked: It was given to the recorder.
        open_ended: It stays open until it is told to finish.
        parked: It rests until work is started from outside.
        had_work: Work was started for it.
        submitting: Work for it is being submitted.
        step_id: Id of the step at which it waits for input; None if it does not.
        messages: Its open executions.
        cause: Why it ended as an error, in one line; None if that is not known.
    """

    status: str
    finished: bool
    tracked: bool
    open_ended: bool = False
    parked: bool = False
    had_work: bool = False
    submitting: bool = False
    step_id: str | None = None
    messages: Sequence[OpenMessages] = ()
    cause: str | None = None


def activity_of(facts: Facts, moment: datetime, heartbeat_seconds: float) -> Activity:
    """Say what a task is doing.

    What runs is named before what waits; of what waits, what may begin at once before what is to begin later; and
    only where no work is open, what the task waits for.

    Args:
        facts: What is known.
        moment: Now, aware.
        heartbeat_seconds: How often a running execution gives a sign of life.
    """
    if facts.finished:
        return Activity(ActivityWord.ENDED, _end_words(facts))
    return (
        _running(facts.messages, moment, heartbeat_seconds)
        or _queued(facts.messages, moment)
        or _later(facts.messages, moment)
        or _resting(facts)
    )


def _end_words(facts: Facts) -> str:
    if facts.cause:
        return facts.cause
    if facts.status in ERROR_WORDS:
        return "failed"
    return "ended" if facts.status == TaskStatus.SUCCESS else f"ended as {facts.status}"


def _running(messages: Sequence[OpenMessages], moment: datetime, heartbeat_seconds: float) -> Activity | None:
    limit = timedelta(seconds=_MISSED_BEATS * heartbeat_seconds)
    running = [group for group in messages if group.state == ExecutionState.RUNNING]
    if not running:
        return None
    silent = [group for group in running if group.heartbeat_at is not None and moment - group.heartbeat_at > limit]
    lively = [group for group in running if group not in silent]
    words = []
    if lively:
        words.append("running" + _on(group.worker for group in lively))
    for group in silent[:_NAMED]:
        assert group.heartbeat_at is not None  # noqa: S101  (chosen by it above; tells the type checker)
        whose = f" from {group.worker}" if group.worker else ""
        words.append(f"no sign of life for {_span(moment - group.heartbeat_at)}{whose}")
    return Activity(ActivityWord.RUNNING if lively else ActivityWord.SILENT, "; ".join(words))


def _queued(messages: Sequence[OpenMessages], moment: datetime) -> Activity | None:
    waiting = [group for group in messages if group.state == ExecutionState.QUEUED and not _is_later(group, moment)]
    if not waiting:
        return None
    queues = tuple(sorted({group.queue for group in waiting if group.queue}))
    text = "queued" + (f" in {_names(queues)}" if queues else "")
    if all(group.handed_back for group in waiting):
        text += ", to be delivered again"
    elif all(group.retried for group in waiting):
        text += ", to be tried again"
    since = [moment for moment in (group.due or group.published_at for group in waiting) if moment is not None]
    return Activity(ActivityWord.QUEUED, text, queues, min(since, default=None))


def _later(messages: Sequence[OpenMessages], moment: datetime) -> Activity | None:
    later = [group for group in messages if group.due is not None and _is_later(group, moment)]
    if not later:
        return None
    first = min(later, key=lambda group: group.due or moment)
    span = _span((first.due or moment) - moment)
    if first.retried:
        return Activity(ActivityWord.RETRYING, f"tried again in {span}")
    return Activity(ActivityWord.DELAYED, f"starts in {span}")


def _is_later(group: OpenMessages, moment: datetime) -> bool:
    return group.state == ExecutionState.QUEUED and group.due is not None and group.due > moment


def _resting(facts: Facts) -> Activity:
    if facts.step_id is not None:
        return Activity(ActivityWord.WAITING, f"waits for input at step {facts.step_id}")
    if facts.submitting:
        return Activity(ActivityWord.SUBMITTING, "its work is being submitted")
    if not facts.tracked:
        return Activity(ActivityWord.UNTRACKED, "nobody gave it to the recorder")
    if facts.open_ended:
        return Activity(ActivityWord.OPEN_ENDED, "open-ended: stays open until it is told to finish")
    if facts.parked:
        return Activity(ActivityWord.PARKED, "parked: goes on when its next work is started")
    if not facts.had_work:
        return Activity(ActivityWord.IDLE, "no work was started for it yet")
    # Between two transactions: what was open has ended, and its task is about to.
    return Activity(ActivityWord.IDLE, "nothing of it is open")


def _on(workers: Iterable[str | None]) -> str:
    names = sorted({worker for worker in workers if worker})
    return f" on {_names(names)}" if names else ""


def _names(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_NAMED])
    return shown if len(names) <= _NAMED else f"{shown} and {len(names) - _NAMED} more"


def _span(span: timedelta) -> str:
    """Say a span as people count it down: in seconds up to two minutes, then in minutes, hours, days."""
    seconds = max(0, round(span.total_seconds()))
    if seconds < 120:
        return f"{seconds} s"
    if seconds < 7200:
        return f"{seconds // 60} min"
    return f"{seconds // 3600} h" if seconds < 172800 else f"{seconds // 86400} d"
