"""The execution that runs, and the submission that publishes: what is known of them in memory."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

from ..facts import ExecutionKey, Progress, Publication, Reports, TaskRef
from ..store.executions.celery_ids import is_chosen
from .loops import NOTHING, Loop, Values, progress_of


@dataclass(eq=False)
class Publisher:
    """Something whose published messages belong to a task.

    Attributes:
        ref: The task.
        publications: Messages seen and not yet registered in the database, oldest first.
    """

    ref: TaskRef
    publications: list[Publication] = field(default_factory=list)
    #: Keys of the messages that it has sent, as far as somebody chose their ids; the others never come twice.
    chosen: set[ExecutionKey] = field(default_factory=set)

    def take_sent(self) -> list[Publication]:
        """Remove and return the publications that the broker has; the others stay until they are sent."""
        publications = self.publications
        if not publications:
            return []
        sent = [publication for publication in publications if publication.sent]
        for publication in sent:
            publications.remove(publication)
        return sent

    def has_sent(self, key: ExecutionKey | None) -> bool:
        """Tell whether a message with this key, whose id somebody chose, was sent by this very run."""
        return key in self.chosen

    def note_sent(self, key: ExecutionKey) -> None:
        """Mark a publication as handed to the broker."""
        if is_chosen(key.celery_id):
            self.chosen.add(key)
        for publication in reversed(self.publications):
            if publication.key == key:
                publication.sent = True
                return


@dataclass(eq=False)
class Submission(Publisher):
    """A canvas being submitted by `start`.

    Attributes:
        registered: Key of the one message that was registered before it was published.
    """

    registered: ExecutionKey | None = None
    published: int = 0


@dataclass(eq=False)
class Execution(Publisher):
    """One execution that runs in this thread, from `task_prerun` to `task_postrun`.

    Attributes:
        key: Its key.
        name: Name of the Celery task.
        task: Celery's task object.
        request: Celery's request.
        function: The plugin function whose body it runs, None for a task that is no plugin task.
        acks_late: Whether the broker keeps its message until it ended.
        max_retries: Celery's limit of retries, None for no limit.
        known: False if the database knows no task with this token.
        closed: Its end is recorded.
        postponed: Its end waits in memory for the database; until then its lease is renewed.
        task_ended: The task had already ended when it began.
        elsewhere: It runs already in a process that is alive: its message was delivered again.
        entered: The body was entered; a further call of the function is a plain call.
        begun: That it runs is recorded, or waits for the database.
        registered: That it runs is recorded, so that its row is there.
        failure: Why it failed, as Celery reported it (a `facts.Failure`).
        stored_failure: The failed end that its body stored itself (a `facts.Failure`).
        succeeded: Celery said so: its result is stored and what follows is published.
        retried: Why it is tried again, once Celery said so: the next attempt is published (a `facts.Failure`).
        limit: A soft time limit that struck in our part, before the body.
        leaves: `task_postrun` was sent.
        ended: What its way out of the tracer means is recorded, or waits for the database.
        outer: The execution inside which it runs eagerly.
        recorder: Where its facts go.
        leave: Ends its session scope and gives the ContextVars their former values.
    """

    key: ExecutionKey = field(kw_only=True)
    name: str = field(kw_only=True)
    task: Any = field(kw_only=True, default=None)
    request: Any = field(kw_only=True, default=None)
    function: Callable[..., Any] | None = field(kw_only=True, default=None)
    acks_late: bool = field(kw_only=True, default=False)
    max_retries: int | None = field(kw_only=True, default=None)
    known: bool = field(kw_only=True, default=True)
    task_ended: bool = field(kw_only=True, default=False)
    elsewhere: bool = field(kw_only=True, default=False)
    entered: bool = field(kw_only=True, default=False)
    closed: bool = field(kw_only=True, default=False)
    postponed: bool = field(kw_only=True, default=False)
    begun: bool = field(kw_only=True, default=False)
    registered: bool = field(kw_only=True, default=False)
    failure: Any = field(kw_only=True, default=None)
    stored_failure: Any = field(kw_only=True, default=None)
    limit: BaseException | None = field(kw_only=True, default=None)
    leaves: bool = field(kw_only=True, default=False)
    ended: bool = field(kw_only=True, default=False)
    succeeded: bool = field(kw_only=True, default=False)
    retried: Any = field(kw_only=True, default=None)
    leave: Callable[[], None] = field(kw_only=True, default=lambda: None)
    outer: Execution | None = field(kw_only=True, default=None)
    recorder: Any = field(kw_only=True, default=None)
    #: Ends of eager executions inside this one that could not be written when they came.
    inner: list[Any] = field(kw_only=True, default_factory=list)
    began: float = field(kw_only=True, default_factory=time.monotonic)
    #: Whether this is the copy of it in a child that its plugin forked, which counts for nothing.
    inherited: bool = field(kw_only=True, default=False)
    #: Log entries not written yet; a deque, since the plugin appends while another thread takes from it.
    lines: deque[str] = field(kw_only=True, default_factory=deque)
    #: How far it has come, as it said last; `NOTHING` itself if it said nothing.
    reported: Values = field(kw_only=True, default=NOTHING)
    #: The loop that it goes through, which says so by itself.
    loop: Loop | None = field(kw_only=True, default=None)
    #: What of that was taken to be written.
    taken: Progress | None = field(kw_only=True, default=None)
    #: Held while its reports are written, so that the last value is never overtaken by an older one.
    #: A time limit may strike while it is given back, and leave it with this thread: so the thread may take it twice.
    writing: AbstractContextManager[Any] = field(kw_only=True, default_factory=threading.RLock)

    @property
    def dirty(self) -> bool:
        """Whether reports or publications wait to be written."""
        return bool(self.lines or self.publications or self._untaken() is not None)

    def take_lines(self) -> list[str]:
        """Remove and return the log entries that wait to be written."""
        taken = []
        while self.lines:
            taken.append(self.lines.popleft())
        return taken

    def take_progress(self) -> Progress | None:
        """Return the progress if it waits to be written, and note that it was taken."""
        progress = self._untaken()
        if progress is not None:
            self.taken = progress
        return progress

    def take(self) -> Reports:
        """Remove and return all that waits to be written."""
        return Reports(
            self.take_lines() if self.lines else (),
            self.take_progress(),
            self.take_sent() if self.publications else (),
        )

    def give_back_progress(self) -> None:
        """Let the progress wait to be written, though it was taken."""
        self.taken = None

    def _untaken(self) -> Progress | None:
        # The plugin may report, and a loop go on, at every moment: looked at once.
        loop, values = self.loop, self.reported
        if loop is not None and loop.speaks:
            values = loop.values()
        elif values is NOTHING:
            return None
        progress = progress_of(values)
        return None if progress == self.taken else progress


class Detached:
    """Marks a stretch of code whose messages belong to nobody."""
