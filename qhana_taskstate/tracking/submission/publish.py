"""Publishes what `start` has committed, and records whether that worked."""

from __future__ import annotations

from celery import Celery
from kombu.exceptions import EncodeError, KombuError
from kombu.utils.url import maybe_sanitize_url

from ...broker.connection import brief_connection
from ...context.current import submitting
from ...context.execution import Submission
from ...errors import BrokerUnavailableError
from ...facts import TaskRef
from ...failures import summary_of
from ...recording import submissions
from ...recording.execution_recorder import ExecutionRecorder
from ...store.task import jobs
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
            entry = f"could not be sent: {summary_of(exc)}"
            submissions.give_up(self._recorder, submission.ref, hold_id, entry)
            if isinstance(exc, _broker_errors(self._app)) and not isinstance(exc, EncodeError):
                raise _unreachable(self._app, exc) from exc
            raise
        except BaseException:
            # Interrupted: nobody goes on with this submission.
            submissions.leave(self._recorder, hold_id)
            raise
        self._release(submission, hold_id)

    def _has_ended(self, ref: TaskRef) -> bool:
        with self._recorder.database.reading() as connection:
            job = jobs.find_job(connection, ref.task_id)
        return job is not None and job.end_status is not None

    def _release(self, submission: Submission, hold_id: str | None) -> None:
        """Register what was published, and end the hold."""
        if hold_id is None and not submission.publications:
            return
        publications = submission.take_sent()
        if hold_id is None:
            self._recorder.register(submission.ref, publications)
        else:
            submissions.release(self._recorder, submission.ref, hold_id, publications)
