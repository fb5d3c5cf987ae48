"""Connects the handlers of Celery's signals; nothing else listens.

What Celery sends, from which process and in which order, differs between ways to end. The rules that the handlers keep
held in all measured scenarios of celery 5.7: only `task_postrun` with a closing state ends an execution in the process
that runs it, a failure reported by the worker's parent ends one too, and everything may come twice, late, or never.
"""

from __future__ import annotations

from celery import signals

from .handlers.dropped import on_task_rejected, on_task_revoked, on_task_unknown
from .handlers.lifecycle import on_leaving, on_worker_init, on_worker_process_init, on_worker_ready
from .handlers.publishing import on_after_task_publish, on_before_task_publish
from .handlers.running import on_task_failure, on_task_postrun, on_task_prerun, on_task_retry, on_task_success


def connect() -> None:
    """Listen to Celery's signals; twice is once."""
    for signal, handler in (
        (signals.before_task_publish, on_before_task_publish),
        (signals.after_task_publish, on_after_task_publish),
        (signals.task_prerun, on_task_prerun),
        (signals.task_success, on_task_success),
        (signals.task_retry, on_task_retry),
        (signals.task_failure, on_task_failure),
        (signals.task_postrun, on_task_postrun),
        (signals.task_revoked, on_task_revoked),
        (signals.task_unknown, on_task_unknown),
        (signals.task_rejected, on_task_rejected),
        (signals.worker_init, on_worker_init),
        (signals.worker_process_init, on_worker_process_init),
        (signals.worker_ready, on_worker_ready),
        (signals.worker_process_shutdown, on_leaving),
        (signals.worker_shutdown, on_leaving),
    ):
        # Receivers are held weakly by default, and so would vanish (celery 5.7).
        signal.connect(handler, weak=False, dispatch_uid=f"qhana_taskstate.{handler.__name__}")
