"""Into which queue a message goes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from celery import Celery


def queue_of(exchange: Any, routing_key: str | None, declared: Sequence[Any] | None) -> str | None:
    """Tell to which queue a message goes, from what `before_task_publish` says.

    Args:
        exchange: The exchange or its name; the one without a name leads to the queue that the routing key names.
        routing_key: The routing key.
        declared: The queues that Celery declares before it publishes.

    Returns:
        None where only the broker knows.
    """
    name = str(getattr(exchange, "name", exchange) or "")
    if not name:
        return routing_key
    # Celery declares the default queue although the caller chose another exchange (celery 5.7).
    for queue in declared or ():
        if getattr(queue.exchange, "name", None) == name and queue.routing_key == routing_key:
            return str(queue.name)
    return None


def queue_for(app: Celery, name: str, args: Any, kwargs: Any, options: Mapping[str, Any]) -> str | None:
    """Tell to which queue Celery will send a message.

    Args:
        app: The Celery app.
        name: Name of the Celery task.
        args: Its arguments, for routers that look at them.
        kwargs: Its keyword arguments.
        options: The options of the call; those of the task are added.

    Returns:
        None where only the broker knows.

    Raises:
        Exception: What a router of the application raises, or Celery for a queue that it does not know.
    """
    task: Any = app.tasks.get(name)
    own = task._get_exec_options() if task is not None else {}
    chosen = {key: value for key, value in {**own, **options}.items() if value is not None}
    routed = app.amqp.router.route(dict(chosen), name, args, kwargs, task)
    queue, exchange, routing_key = routed.get("queue"), routed.get("exchange"), routed.get("routing_key")
    if isinstance(queue, str):
        queue = app.amqp.queues[queue]
    if queue is None:
        return None
    # As Celery does when it sends (celery 5.5 to 5.7, `send_task_message`).
    if queue.exchange.type == "direct" and (not exchange or not routing_key):
        return str(queue.name)
    return queue_of(exchange or queue.exchange, routing_key or queue.routing_key, [queue])
