"""The worker parent's side of an execution, where signals are not enough: a subclass of Celery's `Request`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, Protocol

from billiard.exceptions import Terminated, TimeLimitExceeded, WorkerLostError
from celery import Celery
from celery.exceptions import Ignore, Reject, Retry
from celery.worker.request import Request

from .. import registry
from ..context.current import signalling, submitting
from ..context.execution import Submission
from ..context.header import ref_of_request
from ..facts import ExecutionKey, Failure, TaskRef
from ..failures import message_of
from ..recording.execution_recorder import ExecutionRecorder
from ..recording.exits.decision import failure_of, runs_again_after_timeout
from ..states import ExecutionState
from . import older_celery as tracking_older_celery

logger = logging.getLogger(__name__)

#: What is said of a revoked execution of which Celery could not tell.
_REVOKED: Final = Failure(type="TaskRevokedError", message="revoked")


class Parent(Protocol):
    """What a request needs of a `TaskState`."""

    @property
    def recorder(self) -> ExecutionRecorder:
        """Where facts go."""


def install(app: Celery) -> None:
    """Let the worker of an app use `TrackedRequest` for tasks that use Celery's own class.

    To be called before the worker's strategies are built, that is from `worker_init` (celery 5.5 to 5.7).
    """
    for task in app.tasks.values():
        if task.Request in ("celery.worker.request:Request", Request):
            task.Request = TrackedRequest  # type: ignore[assignment]  # a class does as well as its name


class TrackedRequest(Request):
    """Tells the recorder what Celery does not signal, and lets errbacks of the parent belong to their task."""

    _handed_back = False
    _rejected_by_task = False
    _retried = False

    def _ref(self) -> TaskRef | None:
        return ref_of_request(self)

    def _key(self) -> ExecutionKey:
        return ExecutionKey(
            str(self.id),
            int(self.request_dict.get("retries") or 0),
            int(self.request_dict.get("replaced_task_nesting") or 0),
        )

    @contextmanager
    def _belonging(self) -> Iterator[None]:
        ref = self._ref()
        if ref is None:
            with signalling(None, self._key()):
                yield
            return
        submission = Submission(ref)
        try:
            with signalling(ref, self._key()), submitting(submission):
                yield
        finally:
            publications = submission.take_sent()
            if publications:
                self._tell(lambda recorder: recorder.register(ref, publications))

    def _tell(self, fact: Callable[[ExecutionRecorder], None]) -> None:
        try:
            parent: Parent | None = registry.parts(self.app) if self.app is not None else None
            if parent is not None:
                fact(parent.recorder)
        except Exception:
            logger.exception("what happened to %s[%s] could not be recorded", self.name, self.id)

    @contextmanager
    def _told_anyway(self, state: ExecutionState, failure: Failure | None) -> Iterator[None]:
        """Tell of an end ourselves if something raises before Celery has: the result backend, a hook, an errback."""
        try:
            with self._belonging():
                yield
        except Exception as exc:
            if failure is not None and not self._handed_back:
                logger.debug("%s[%s]: %s kept Celery from telling its end", self.name, self.id, type(exc).__name__)
                ref, key, name = self._ref(), self._key(), self.name
                self._tell(lambda recorder: recorder.close_elsewhere(ref, key, key.celery_id, name, state, failure))
            raise

    def on_failure(self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False) -> Any:
        """As Celery's; tells of losses that no signal tells of."""
        if tracking_older_celery.IN_USE:
            if tracking_older_celery.is_exit(exc_info) and (self._already_cancelled or self._already_revoked):  # type: ignore[attr-defined]
                # The signal that Celery itself sent ended the child; the message stays unacknowledged (as in 5.7).
                return None
            exc_info = tracking_older_celery.storable(exc_info)
        exc = tracking_older_celery.exception_of(exc_info)
        if tracking_older_celery.IN_USE and isinstance(exc, WorkerLostError) and self._success_was_stored():
            # Celery 5.7 does so: a failure would fire errbacks, and count the member of a chord twice.
            self.on_success((False, None, None))
            if (ref := self._ref()) is not None:
                self._after_loss(ref, exc)
            return None
        self._rejected_by_task = isinstance(exc, Reject)
        # The other ones are no failures, or the broker delivers the message again.
        fails = not isinstance(exc, (Ignore, Retry)) and not (isinstance(exc, Reject) and exc.requeue)  # type: ignore[attr-defined]  # not in the stubs
        state = ExecutionState.REVOKED if isinstance(exc, Terminated) else ExecutionState.FAILURE
        with self._told_anyway(state, failure_of(exc, None, exc_info) if fails else None):
            result = super().on_failure(exc_info, send_failed_event, return_ok)
        ref = self._ref()
        if ref is not None and isinstance(exc, (WorkerLostError, SystemExit, KeyboardInterrupt)):
            self._after_loss(ref, exc)
        return result

    def _retry_worker_lost(self, *args: Any, **kwargs: Any) -> Any:
        """As Celery's (5.7); remembers that the lost attempt is followed by another one."""
        self._retried = bool(super()._retry_worker_lost(*args, **kwargs))  # type: ignore[misc]  # not in the stubs
        return self._retried

    def _success_was_stored(self) -> Any:
        """As Celery's (5.7): tell whether the result backend holds a success of this message."""
        if tracking_older_celery.IN_USE:
            return tracking_older_celery.success_was_stored(self)
        return super()._success_was_stored()  # type: ignore[misc]  # not in the stubs

    def _after_loss(self, ref: TaskRef, exc: BaseException) -> None:
        key, name = self._key(), self.name
        if self._retried:
            # Its next attempt is registered by now, so that nobody finds the task at its end in between.
            cause = Failure(type=type(exc).__name__, message=message_of(exc))
            self._tell(
                lambda recorder: recorder.close_elsewhere(ref, key, key.celery_id, name, ExecutionState.RETRY, cause)
            )
            return
        if self._handed_back:
            return
        if self._success_was_stored() and not self._is_followed():
            # Celery tells of no failure if the child was lost after its success was stored. What would follow
            # was published by the child, perhaps without being recorded: then only the lease may settle it.
            self._tell(
                lambda recorder: recorder.close_elsewhere(ref, key, key.celery_id, name, ExecutionState.SUCCESS, None)
            )

    def _is_followed(self) -> bool:
        payload = self._payload  # type: ignore[attr-defined]  # not in the stubs
        embedded = payload[2] or {} if isinstance(payload, (tuple, list)) else {}
        if any(embedded.get(kind) for kind in ("chain", "chord", "callbacks")):
            return True
        try:
            # What it sent while it ran is noted with its result.
            return bool(self.app is None or self.app.AsyncResult(str(self.id)).children)
        except Exception as exc:
            logger.debug("no result of %s: %s", self.id, type(exc).__name__)
            return True

    def on_timeout(self, soft: bool, timeout: float) -> Any:
        """As Celery's; a second errback that it publishes here belongs to the task too."""
        limit = None if soft else failure_of(TimeLimitExceeded(timeout))
        with self._told_anyway(ExecutionState.FAILURE, limit):
            result = super().on_timeout(soft, timeout)
        if limit is not None and not self._handed_back and not runs_again_after_timeout(self.task):
            # Celery 5.5 and 5.6 send no signal if the pool has greenlets; elsewhere this comes second.
            ref, key, name = self._ref(), self._key(), self.name
            if ref is not None:
                self._tell(
                    lambda recorder: recorder.close_elsewhere(
                        ref, key, key.celery_id, name, ExecutionState.FAILURE, limit
                    )
                )
        return result

    def reject(self, requeue: bool = False) -> Any:
        """As Celery's; tells before it goes back to the broker that the message will be delivered again.

        Afterwards another worker may have begun it. A message that the task itself rejected was told of there.
        """
        ref = self._ref()
        if requeue and not self.acknowledged and not self._rejected_by_task:
            self._handed_back = True
            if ref is not None:
                self._hand_back(ref, lost=True)
        return super().reject(requeue=requeue)

    def _hand_back(self, ref: TaskRef, *, lost: bool) -> None:
        key, name, pid = self._key(), self.name, self.worker_pid
        process = int(pid) if pid is not None else None
        self._tell(lambda recorder: recorder.hand_back(ref, key, name, lost=lost, pid=process))

    def cancel(self, *args: Any, **kwargs: Any) -> Any:
        """As Celery's (cold shutdown, connection loss); what was acknowledged early is lost by it."""
        ref, was_acknowledged = self._ref(), self.acknowledged
        began = bool(self.time_start)
        try:
            with self._belonging():
                result = super().cancel(*args, **kwargs)
        finally:
            self._after_cancel(ref, began=began, was_acknowledged=was_acknowledged)
        return result

    def _after_cancel(self, ref: TaskRef | None, *, began: bool, was_acknowledged: bool) -> None:
        if ref is not None and began:
            key, name = self._key(), self.name
            if was_acknowledged:
                failure = Failure(type="WorkerShutdown", message="its worker was shut down while it ran")
                self._tell(
                    lambda recorder: recorder.close_elsewhere(
                        ref, key, key.celery_id, name, ExecutionState.LOST, failure
                    )
                )
            else:
                self._hand_back(ref, lost=False)

    def revoked(self) -> Any:
        """As Celery's; an errback that it publishes belongs to the task."""
        with self._told_anyway(ExecutionState.REVOKED, _REVOKED):
            return super().revoked()

    def terminate(self, *args: Any, **kwargs: Any) -> Any:
        """As Celery's; an errback that it publishes belongs to the task."""
        with self._belonging():
            return super().terminate(*args, **kwargs)
