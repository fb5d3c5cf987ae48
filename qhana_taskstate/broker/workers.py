"""Which messages a worker holds: its answer to `broker.lost_messages.Broker.ask_workers`."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

from celery.worker import state as worker_state
from celery.worker.control import inspect_command
from celery.worker.request import Request

from .lost_messages import HOLDINGS_COMMAND


def install() -> None:
    """Let the workers of this process answer; twice is once."""
    inspect_command(name=HOLDINGS_COMMAND, visible=False)(tell)


def tell(state: Any, celery_ids: Collection[str] = (), **_: Any) -> dict[str, list[str]]:
    """Tell which of these messages this worker holds, begun or not, and which queues it consumes.

    Celery's own `query_task` knows neither what waits for its rate limit, nor on all versions what waits for its eta,
    nor what runs since before the connection to the broker was lost (celery 5.5 to 5.7).
    """
    wanted = set(celery_ids)
    held = {request.id for request in _requests(state.consumer)} & wanted
    return {"held": sorted(held), "queues": _queues(state.consumer)}


def _requests(consumer: Any) -> Iterator[Any]:
    for known in (worker_state.active_requests, worker_state.reserved_requests):
        yield from list(known)
    yield from list(worker_state.requests.values())
    for waiting in list(consumer.timer.schedule.queue):
        arguments = getattr(waiting.entry, "args", None) or ()
        if arguments and isinstance(arguments[0], Request):
            yield arguments[0]
    for bucket in list(consumer.task_buckets.values()):
        for request, _ in list(bucket.contents) if bucket else ():
            yield request


def _queues(consumer: Any) -> list[str]:
    return [queue.name for queue in consumer.task_consumer.queues] if consumer.task_consumer else []
