"""Which published messages are lost: neither in a queue, nor unacknowledged, nor with a worker."""

from __future__ import annotations

import json
import logging
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Event
from typing import Any, Final

from celery import Celery
from kombu import Connection
from redis import Redis

logger = logging.getLogger(__name__)


#: Name of the control command by which workers tell what they hold; see `broker.workers`.
HOLDINGS_COMMAND: Final = "taskstate_holdings"


#: Seconds that the broker has for one answer, and that workers have for theirs.
_ANSWER_SECONDS: Final = 2


#: What is read from a Redis at once: about so many bytes, at most so many messages; and the pause after it, so that a
#: look at a million messages neither fills the memory nor keeps the server from its work.
_PAGE_BYTES, _PAGE, _PAUSE_SECONDS = 1_000_000, 500, 0.05


#: How many ids one question to the workers holds.
_QUESTION: Final = 1000


#: AMQP's code for a queue that is not there.
_NOT_FOUND: Final = 404


@dataclass(frozen=True, slots=True, kw_only=True)
class Sought:
    """A message that is looked for.

    Attributes:
        celery_id: Celery's id.
        queue: Name of the queue that it was sent to.
        due: Whether a worker may begin it by now (its eta has passed).
    """

    celery_id: str
    queue: str
    due: bool = True


@dataclass(slots=True)
class Holdings:
    """What the workers that answered said.

    Attributes:
        held: Those of the ids that they hold.
        consuming: How many of them consume each queue.
    """

    held: set[str] = field(default_factory=set)
    consuming: Counter[str] = field(default_factory=Counter)


class Broker:
    """The broker of one app, as far as it tells where its messages are. Opens a connection for each look.

    Args:
        app: The Celery app.
    """

    def __init__(self, app: Celery) -> None:
        self._app = app

    @property
    def tells(self) -> bool:
        """Whether messages can be looked for in a broker of this kind (Redis and RabbitMQ)."""
        if self._app.conf.task_always_eager:
            return False
        return _kind(self._app.connection_for_read()) in _LOOKS

    def find_missing(self, sought: Collection[Sought], stop: Event | None = None) -> set[str]:
        """Return the ids of those messages that are nowhere, as far as that can be told now.

        One look proves little: a message on its way from a queue to a worker is in neither. On Redis the queues and
        what is not acknowledged are read. RabbitMQ does not list a queue: there a message counts as missing if its
        queue is gone or empty and each consumer of it is a worker that answers and does not hold it.

        Args:
            sought: What to look for.
            stop: Looked at now and then; set, it ends the look.

        Returns:
            Nothing if the look was stopped or the broker does not tell.

        Raises:
            Exception: Whatever kombu, redis or the socket raise if the broker cannot be reached.
        """
        with self._connected() as connection:
            look = _LOOKS.get(_kind(connection))
            return set() if look is None or not sought else look(self, connection, sought, stop or Event())

    @contextmanager
    def _connected(self) -> Iterator[Connection]:
        # Without limits of its own a broker that accepts and never answers is waited for without end.
        limits = {"socket_timeout": _ANSWER_SECONDS, "socket_connect_timeout": _ANSWER_SECONDS}
        options = {**(self._app.conf.broker_transport_options or {}), **limits}
        with self._app.connection_for_write(connect_timeout=_ANSWER_SECONDS, transport_options=options) as connection:
            connection.ensure_connection(max_retries=1, interval_start=0, timeout=_ANSWER_SECONDS)
            yield connection

    def ask_workers(self, celery_ids: Collection[str]) -> Holdings:
        """Ask the workers which of these messages they hold, begun or not, and which queues they consume.

        Returns:
            What those said that answered in time.
        """
        found = Holdings()
        ids = sorted(celery_ids)
        for start in range(0, len(ids), _QUESTION):
            replies = self._app.control.broadcast(
                HOLDINGS_COMMAND,
                arguments={"celery_ids": ids[start : start + _QUESTION]},
                reply=True,
                timeout=_ANSWER_SECONDS,
            )
            answers = [answer for reply in replies or () for answer in reply.values() if _is_answer(answer)]
            for answer in answers:
                found.held.update(answer["held"])
            consuming = Counter(queue for answer in answers for queue in set(answer["queues"]))
            # Who did not answer each time did not answer.
            found.consuming = consuming if start == 0 else found.consuming & consuming
        return found

    def _look_in_redis(self, connection: Connection, sought: Collection[Sought], stop: Event) -> set[str]:
        channel: Any = connection.default_channel
        if not channel.ack_emulation:
            # What a worker holds is in its memory only.
            return set()
        # Not the channel's own client: it puts the prefix before the keys of some commands only (kombu 5.7).
        client = Redis(connection_pool=channel.pool)
        prefix = channel.global_keyprefix
        left = {one.celery_id for one in sought}
        # kombu keeps a list for each step of priority.
        keys = [
            prefix + channel._q_for_pri(queue, step)
            for queue in sorted({one.queue for one in sought})
            for step in channel.priority_steps
        ]
        unacknowledged = prefix + channel.unacked_key
        pages = _Pages(client, stop)
        # What has waited long is at the end from which workers take: a backlog is so recognised without reading all.
        reach = 2 * len(left)
        for ids in (
            *(pages.oldest(key, reach) for key in keys),
            pages.unacknowledged(unacknowledged),
            # From the other end, so that what is taken or added meanwhile moves nothing past the reader; and what was
            # taken by a worker meanwhile afterwards.
            *(pages.all(key) for key in keys),
            pages.unacknowledged(unacknowledged),
        ):
            for page in ids:
                left -= page
                if not left:
                    return left
        if pages.ended_early:
            return set()
        return left - self.ask_workers(left).held

    def _look_in_rabbitmq(self, connection: Connection, sought: Collection[Sought], stop: Event) -> set[str]:
        consumers: dict[str, int | None] = {}
        for queue in sorted({one.queue for one in sought}):
            channel: Any = connection.channel()
            with channel:
                try:
                    _, ready, count = channel.queue_declare(queue=queue, passive=True)
                except connection.channel_errors as exc:
                    if getattr(exc, "code", None) != _NOT_FOUND:
                        raise
                    consumers[queue] = None
                else:
                    if not ready:
                        consumers[queue] = count
            if stop.is_set():
                return set()
        # Delayed messages wait elsewhere until they are due.
        suspects = [one for one in sought if one.due and one.queue in consumers]
        if not suspects:
            return set()
        holdings = self.ask_workers({one.celery_id for one in suspects})
        return {
            one.celery_id
            for one in suspects
            if one.celery_id not in holdings.held and _all_answered(consumers[one.queue], holdings.consuming[one.queue])
        }


_Look = Callable[[Broker, Connection, Collection[Sought], Event], set[str]]


_LOOKS: Final[Mapping[str, _Look]] = {"redis": Broker._look_in_redis, "amqp": Broker._look_in_rabbitmq}


def _kind(connection: Connection) -> str:
    return str(getattr(connection.transport, "driver_type", ""))


def _all_answered(consumers: int | None, answered: int) -> bool:
    return consumers is None or consumers <= answered


def _is_answer(answer: object) -> bool:
    # A worker without this package answers with an error.
    return isinstance(answer, Mapping) and "held" in answer and "queues" in answer


class _Pages:
    """Reads the ids of messages out of a Redis, a page at a time and with pauses.

    Args:
        client: Of the Redis.
        stop: Set, it ends the reading.
    """

    def __init__(self, client: Any, stop: Event) -> None:
        self._client = client
        self._stop = stop
        #: How many messages to read at once; adapted to their size.
        self._count = 10
        self.ended_early = False

    def oldest(self, key: str, reach: int) -> Iterator[set[str]]:
        """Yield the ids of those that were sent first, of so many messages at most."""
        end = 0
        while end < reach:
            count = self._count
            page = self._client.lrange(key, -end - count, -end - 1)
            end += count
            yield set(map(_id_of, page))
            if len(page) < count or not self._goes_on(page):
                return

    def all(self, key: str) -> Iterator[set[str]]:
        """Yield the ids of all messages of a list, the newest first."""
        start = 0
        while not self._stop.is_set():
            page = self._client.lrange(key, start, start + self._count - 1)
            if not page:
                return
            start += len(page)
            yield set(map(_id_of, page))
            if not self._goes_on(page):
                return
        self.ended_early = True

    def unacknowledged(self, key: str) -> Iterator[set[str]]:
        """Yield the ids of the messages that workers have and have not acknowledged."""
        cursor = 0
        while not self._stop.is_set():
            cursor, page = self._client.hscan(key, cursor, count=self._count)
            yield set(map(_id_of, page.values()))
            if cursor == 0:
                return
            self._goes_on(list(page.values()))
        self.ended_early = True

    def _goes_on(self, page: Collection[bytes]) -> bool:
        if page:
            mean = sum(len(text) for text in page) / len(page)
            self._count = max(1, min(_PAGE, int(_PAGE_BYTES / mean)))
            time.sleep(_PAUSE_SECONDS)
        if self._stop.is_set():
            self.ended_early = True
        return not self.ended_early


def _id_of(text: bytes) -> str:
    """Return Celery's id of a message as kombu keeps it, or of one that is not acknowledged (a list with it first)."""
    try:
        message = json.loads(text)
        message = message[0] if isinstance(message, list) else message
        headers, properties = message.get("headers") or {}, message.get("properties") or {}
    except (ValueError, LookupError, AttributeError):
        # Not written by kombu.
        return ""
    return str(headers.get("id") or properties.get("correlation_id"))
