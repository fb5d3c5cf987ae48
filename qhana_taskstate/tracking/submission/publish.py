"""Publishes what `start` has committed, and records whether that worked."""

from __future__ import annotations

from celery import Celery
from kombu.exceptions import EncodeError, KombuError
from kombu.utils.url import maybe_sanitize_url
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from ...broker.connection import brief_connection
from ...context.current import submitting
from ...context.execution import Submission
from ...errors import BrokerUnavailableError
from ...facts import TaskRef
from ...failures import summary_of
from ...recording.backlog import Fact
from ...recording.execution_recorder import ExecutionRecorder
from ...states import TaskStatus
from ...store.closing import holds
from ...store.task import jobs
from ...store.task_end import from_outside
from ...store.task_end.outcome import Outcome
from .registration import Registered
from .start_request import StartRequest

#: Seconds for the probe of the broker.
_PROBE_SECONDS = 2


def probe_broker(app: Celery) -> None:
    """Ask the broker of an app for a sign of life.

    Raises:
        BrokerUnavailableError: If it gives none within about a second.
    """
    if app.conf.task_always_eager:
        return
    try:
        with brief_connection(app, _PROBE_SECONDS):
            pass
    except _broker_errors(app) as exc:
        raise _unreachable(app, exc) from exc


def _broker_errors(app: Celery) -> tuple[type[BaseException], ...]:
    connection = app.connection_for_write()
    return (KombuError, OSError, *connection.connection_errors, *connection.channel_errors)


def _unreachable(app: Celery, exc: BaseException) -> BrokerUnavailableError:
    url = maybe_sanitize_url(app.connection_for_write().as_uri())
    return BrokerUnavailableError(f"the broker {url} cannot be reached: {exc}; is it running, is broker_url right?")


class CanvasPublisher:
    """Sends the messages of one app's canvases.

    Args:
        app: The Celery app.
        recorder: Where facts go.
    """

    def __init__(self, app: Celery, recorder: ExecutionRecorder) -> None:
        self._app = app
        self._recorder = recorder

    def publish(self, request: StartRequest, registered: Registered) -> None:
        """Publish a canvas; where that fails, its task ends as ERROR.

        Raises:
            BrokerUnavailableError: If the broker cannot be reached.
        """
        submission, hold_id = registered.submission, registered.hold_id
        if hold_id is not None:
            self._recorder.pulse().add_hold(hold_id)
        try:
            with submitting(submission):
                request.canvas.apply_async(**request.message_options)
        except Exception as exc:
            conf = self._app.conf
            if conf.task_always_eager and self._has_ended(submission.ref):
                self._release(submission, hold_id)
                if conf.task_eager_propagates:
                    raise
                # Celery raises a member's failure here for some canvases (a chain) and not for others.
                return
            self._give_up(submission.ref, exc, hold_id)
            if isinstance(exc, _broker_errors(self._app)) and not isinstance(exc, EncodeError):
                raise _unreachable(self._app, exc) from exc
            raise
        except BaseException:
            # Interrupted: nobody goes on with this submission.
            self._leave_hold(hold_id)
            raise
        self._release(submission, hold_id)

    def _has_ended(self, ref: TaskRef) -> bool:
        with self._recorder.database.reading() as connection:
            job = jobs.find_job(connection, ref.task_id)
        return job is not None and job.end_status is not None

    def _leave_hold(self, hold_id: str | None) -> None:
        if hold_id is not None:
            self._recorder.pulse().remove_hold(hold_id)

    def _release(self, submission: Submission, hold_id: str | None) -> None:
        """Register what was published, and end the hold."""
        if hold_id is None and not submission.publications:
            return
        publications = submission.take_sent()
        if hold_id is None:
            self._recorder.register(submission.ref, publications)
            return
        ref, released = submission.ref, hold_id
        deadline_seconds = self._recorder.settings.publish_deadline_seconds

        work = holds.release_script(ref, released, publications, deadline_seconds=deadline_seconds)

        def written(outcome: Outcome) -> None:
            self._leave_hold(released)
            self._recorder.finish_showing(ref.task_id, outcome)

        # Its lease is renewed until then: what was sent is not to be given up for want of the database.
        try:
            self._recorder.record(Fact(ref.task_id, publications, work, written))
        except DBAPIError:
            self._leave_hold(released)
            raise

    def _give_up(self, ref: TaskRef, exc: Exception, hold_id: str | None) -> None:
        entry = f"could not be sent to the broker: {summary_of(exc)}"

        def work(connection: Connection) -> Outcome:
            return from_outside.end(connection, ref.task_id, TaskStatus.ERROR, entry=entry)

        def written(outcome: Outcome) -> None:
            self._recorder.finish_showing(ref.task_id, outcome)

        self._leave_hold(hold_id)
        self._recorder.record(Fact(ref.task_id, entry, work, written))
