"""A connection to the broker that gives up quickly."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from celery import Celery
from kombu import Connection


@contextmanager
def brief_connection(app: Celery, seconds: int) -> Iterator[Connection]:
    """Connect to the broker of an app for a moment.

    Without limits of its own a broker that accepts and never answers is waited for without end, and one that is away
    for longer than Celery's `broker_connection_timeout` (kombu 5.7).

    Args:
        app: The app.
        seconds: How long to wait for the connection, and then for each answer.

    Yields:
        An open connection; closed at the end.

    Raises:
        Exception: Whatever the broker's library raises.
    """
    limits = {"socket_timeout": seconds, "socket_connect_timeout": seconds}
    options = {**(app.conf.broker_transport_options or {}), **limits}
    with app.connection_for_write(connect_timeout=seconds, transport_options=options) as connection:
        connection.ensure_connection(max_retries=1, interval_start=0, timeout=seconds)
        yield connection
