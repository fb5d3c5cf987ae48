"""The decorator for plugin tasks, and what happens around their functions."""

from __future__ import annotations

import functools
import inspect
import logging
import os
import sys
from collections.abc import Callable
from typing import Any, Concatenate, Literal, ParamSpec, TypeVar, cast, overload

from celery import Celery, Task, _state
from celery.exceptions import Ignore, Reject, Retry
from celery.local import Proxy
from celery.utils.functional import head_from_fun
from sqlalchemy.orm import Session

from . import chords, current, events, tasklog
from .belonging import Execution, Publisher, current_execution, current_publisher
from .celery_ids import check_celery_id
from .coroutines import run_coroutine
from .errors import ArgumentsError, NotInExecutionError, TaskNotFoundError
from .exits import failure_told
from .models import ProcessingTask
from .sessions import current_sessions, has_open_write
from .startable import StartableTask
from .states import TaskEvent

logger = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R", covariant=True)

#: Names of the tasks declared `resend=True` in this process.
resent: set[str] = set()

#: Name of the parameter and keyword by which today's plugins pass the id of their task.
TASK_ID_PARAMETER = "db_id"


class PluginTask(Task):  # type: ignore[type-arg]  # Celery's class takes type arguments at runtime only since 5.7
    """Mixed into the task class of the app for every plugin task."""

    abstract = True

    #: The function as the plugin author wrote it.
    plugin_function: Callable[..., Any]
    #: Its signature without `self`.
    plugin_signature: inspect.Signature
    #: Whether arguments are checked against it before a message is sent (Celery's option `typing`).
    checks_arguments: bool = True
    #: Whether `start` copies the arguments into `ProcessingTask.parameters`.
    store_parameters: bool = False
    #: Whether its messages are kept, to be sent again if the broker loses them.
    resend: bool = False

    @property
    def processing_task(self) -> ProcessingTask:
        """The `ProcessingTask` of the running execution, read anew.

        Raises:
            NotInExecutionError: If no tracked execution runs here.
            TaskNotFoundError: If the row was deleted meanwhile.
        """
        return task_of_execution()

    def start(self, *args: Any, **kwargs: Any) -> ProcessingTask:
        """Start this task as a new job; takes the function's own arguments only, like `delay`.

        Returns:
            The committed and published `ProcessingTask`.

        Raises:
            ArgumentsError: If the arguments do not fit.
            BrokerUnavailableError: If the message could not be sent; the task has then ended as ERROR.
        """
        task: ProcessingTask = current.get().start(self.s(*args, **kwargs))
        return task

    def start_on_commit(self, *args: Any, **kwargs: Any) -> ProcessingTask | None:
        """Start this task as a new job once the host's open transaction is committed; at once where there is none.

        See `TaskState.start_on_commit`. Takes the function's own arguments only, like `delay`.

        Returns:
            The task if it was started at once.

        Raises:
            ArgumentsError: If the arguments do not fit.
        """
        task: ProcessingTask | None = current.get().start_on_commit(self.s(*args, **kwargs))
        return task

    def apply_async(self, args: Any = None, kwargs: Any = None, *rest: Any, **options: Any) -> Any:
        """As Celery's; fills in the id of the task for a function that declares it.

        Raises:
            ArgumentsError: If a `task_id` is given that no column holds; nothing was sent.
            TextCharacterError: If it has a character that no database takes; nothing was sent.
        """
        if self.checks_arguments:
            bind_arguments(self.plugin_signature, tuple(args or ()), kwargs or {})
        celery_id = rest[0] if rest else options.get("task_id")
        if isinstance(celery_id, str):
            check_celery_id(celery_id)
        publisher = current_publisher()
        if isinstance(publisher, Publisher):
            kwargs = self.with_task_id(args, kwargs, publisher.ref.task_id)
        return super().apply_async(args, kwargs, *rest, **options)

    def with_task_id(self, args: Any, kwargs: Any, task_id: int) -> dict[str, Any]:
        """Return the keywords with `db_id` added if the function declares it and nobody gave it."""
        given = dict(kwargs or {})
        if TASK_ID_PARAMETER not in self.plugin_signature.parameters or TASK_ID_PARAMETER in given:
            return given
        names = list(self.plugin_signature.parameters)
        if len(args or ()) > names.index(TASK_ID_PARAMETER):
            return given
        return {**given, TASK_ID_PARAMETER: task_id}

    def retry(
        self,
        args: Any = None,
        kwargs: Any = None,
        exc: Exception | None = None,
        throw: bool = True,
        eta: Any = None,
        countdown: float | None = None,
        max_retries: int | None = None,
        **options: Any,
    ) -> Any:
        """As Celery's; commits the current session before the next attempt is published, if there is to be one."""
        limit = self.max_retries if max_retries is None else max_retries
        # Past it Celery raises, and the execution fails like any other.
        if limit is None or self.request.retries < limit:
            _commit_before_publish(self)
        return super().retry(args, kwargs, exc, throw, eta, countdown, max_retries, **options)

    def replace(self, sig: Any) -> Any:
        """As Celery's; commits the current session before the replacement is published."""
        _commit_before_publish(self)
        return super().replace(sig)

    def update_state(self, task_id: Any = None, state: Any = None, meta: Any = None, **options: Any) -> None:
        """As Celery's; a failed state of the running execution is its end if it then raises `Ignore`."""
        super().update_state(task_id, state, meta, **options)
        _note_state(task_id, state, meta)


def _note_state(task_id: Any, state: Any, meta: Any) -> None:
    execution = current_execution()
    if execution is not None and task_id in (None, execution.key.celery_id):
        execution.told = failure_told(state, meta)


def hear_states(task: Any) -> None:
    """Let a task that is no plugin task, but tracked, tell of the states that its body stores; twice is once."""
    if isinstance(task, PluginTask) or "update_state" in vars(task):
        return
    update_state = task.update_state

    @functools.wraps(update_state)
    def heard(task_id: Any = None, state: Any = None, meta: Any = None, **options: Any) -> None:
        update_state(task_id, state, meta, **options)
        _note_state(task_id, state, meta)

    task.update_state = heard


def _commit_before_publish(task: Task[Any, Any]) -> None:
    execution = current_execution()
    if execution is not None and execution.function is not None and execution.request is task.request_stack.top:
        current_sessions().current.commit()


def task_of_execution() -> ProcessingTask:
    """Return the `ProcessingTask` of the running execution, read anew.

    Raises:
        NotInExecutionError: If no tracked execution runs here.
        TaskNotFoundError: If the row was deleted meanwhile.
    """
    execution = current_execution()
    if execution is None:
        raise NotInExecutionError("no tracked execution runs here; start the task with taskstate.start(...)")
    task = ProcessingTask.get_by_id(execution.ref.task_id)
    if task is None:
        raise TaskNotFoundError(execution.ref.task_id)
    return task


@overload
def plugin_task(function: Callable[P, R], /) -> StartableTask[P, R]: ...


@overload
def plugin_task(
    *,
    bind: Literal[True],
    name: str | None = None,
    store_parameters: bool = False,
    resend: bool = False,
    **options: Any,
) -> Callable[[Callable[Concatenate[Any, P], R]], StartableTask[P, R]]: ...


@overload
def plugin_task(
    *,
    bind: Literal[False] = False,
    name: str | None = None,
    store_parameters: bool = False,
    resend: bool = False,
    **options: Any,
) -> Callable[[Callable[P, R]], StartableTask[P, R]]: ...


def plugin_task(function: Callable[..., Any] | None = None, /, **options: Any) -> Any:
    """Make a Celery task whose executions are tracked. Used like `shared_task`, with or without brackets.

    Args:
        function: The function, when used without brackets.
        options: Celery's options for tasks (`name`, `bind`, `autoretry_for`, …) pass through. Ours:
            `store_parameters=True` lets `start` copy the arguments, as JSON, into `ProcessingTask.parameters`.
            `resend=True` keeps each message, with the arguments in it, until its execution has ended, and sends it
            again if the broker loses it before a worker began it. The process that publishes has to know the task.

    Returns:
        The task of the current app, as `shared_task` does.
    """
    if function is not None:
        if not callable(function):
            raise TypeError(f"plugin_task was given {function!r}; pass a name as plugin_task(name={function!r})")
        return _make(function, options)
    return lambda function: _make(function, options)


def _make(function: Callable[..., Any], options: dict[str, Any]) -> Any:
    bind = bool(options.get("bind"))
    signature = _own_signature(function, bind)
    name = options.get("name")

    def register(app: Celery) -> Any:
        body = _with_bookkeeping(function)
        base = options.get("base") or app.Task
        if not issubclass(base, PluginTask):
            base = type("PluginTask", (PluginTask, base), {"abstract": True, "__module__": base.__module__})
        task = app._task_from_fun(
            body,
            **{
                **options,
                "base": base,
                "plugin_function": staticmethod(function),
                "plugin_signature": signature,
                "store_parameters": bool(options.get("store_parameters", False)),
                "resend": bool(options.get("resend", False)),
                "checks_arguments": getattr(app, "strict_typing", True)
                if options.get("typing") is None
                else options["typing"],
                # Celery's own check knows of no `db_id` that is filled in later; ours takes its place.
                "typing": False,
                # From its shape Celery tells how to call the task as an errback (celery 5.7, backends/base.py).
                "__header__": _header(function, bind),
            },
        )
        if options.get("resend"):
            resent.add(task.name)
        return task

    # As shared_task does (celery 5.5 to 5.7): apps that are finalised later, and those that already are.
    _state.connect_on_app_finalize(register)
    for app in _state._get_active_apps():  # type: ignore[attr-defined]  # not in the stubs
        if app.finalized:
            with app._finalize_mutex:
                register(app)

    def find() -> Any:
        # A thread that did not make the app has no current one, for which Celery puts a default app (celery 5.7).
        mine = _state._tls.current_app  # type: ignore[attr-defined]  # not in the stubs
        state = current.find()
        app = mine or (_state.get_current_app() if state is None else state.app)
        return app.tasks[name or app.gen_task_name(function.__name__, function.__module__)]

    return Proxy(find)


def _own_signature(function: Callable[..., Any], bind: bool) -> inspect.Signature:
    signature = inspect.signature(function)
    parameters = list(signature.parameters.values())
    return signature.replace(parameters=parameters[1:] if bind else parameters)


def _header(function: Callable[..., Any], bind: bool) -> Any:
    header = head_from_fun(function, bound=bind)
    return header if bind else staticmethod(header)


def bind_arguments(signature: inspect.Signature, args: Any, kwargs: Any) -> inspect.BoundArguments:
    """Fit arguments to a plugin function; a missing `db_id` is allowed, since it is filled in.

    Raises:
        TypeError: As Python says it.
    """
    given = dict(kwargs)
    parameter = signature.parameters.get(TASK_ID_PARAMETER)
    if parameter is not None and TASK_ID_PARAMETER not in given:
        position = list(signature.parameters).index(TASK_ID_PARAMETER)
        if len(args) <= position or parameter.kind is parameter.KEYWORD_ONLY:
            given[TASK_ID_PARAMETER] = None
    return signature.bind(*args, **given)


def _with_bookkeeping(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        execution = current_execution()
        if execution is None or execution.function is not function or execution.entered:
            return function(*args, **kwargs)
        execution.entered = True
        return _conduct(execution, function, args, kwargs)

    return run


def _conduct(execution: Execution, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run the body of a plugin task as one unit of work.

    The commit stands inside the task's own call, since Celery publishes what comes next right after it (celery
    5.5 to 5.7, `build_tracer`): the next execution sees what this one wrote.
    """
    if execution.limit is not None:
        # It struck before the body began, where Celery drops what a signal handler raises.
        raise execution.limit
    if execution.task_ended:
        ended = f"task {execution.ref.task_id} has already ended"
        chords.answer_revoked(execution, ended)
        raise Ignore(ended)
    if execution.elsewhere or execution.closed:
        # Its message was delivered again (kombu's visibility timeout, a connection that broke before it was
        # acknowledged): what it did once is not done twice.
        raise Ignore("its message was delivered again; it " + ("runs already" if execution.elsewhere else "has ended"))
    sessions = current_sessions()
    task: PluginTask = execution.task
    kwargs = task.with_task_id(args[1:] if _is_bound(task) else args, kwargs, execution.ref.task_id)
    try:
        result = function(*args, **kwargs)
        if inspect.iscoroutine(result):
            result = run_coroutine(result)
    except (Ignore, Retry, Reject):
        _leave_if_forked(execution)
        sessions.current.commit()
        raise
    except BaseException:
        _leave_if_forked(execution)
        sessions.current.rollback()
        raise
    _leave_if_forked(execution)
    if isinstance(result, str) and result and not _is_followed(execution.request):
        execution.lines.append(result)
    if not sessions.untouched:
        session = sessions.current
        if has_open_write(session):
            _write_lines(execution, session)
        session.commit()
    return result


def _leave_if_forked(execution: Execution) -> None:
    """End a process that the plugin has forked and that came out of its function.

    Celery would let it acknowledge its parent's message, and write to its parent's sockets.
    """
    if execution.pid != os.getpid():
        logger.error(
            "the process %d, which %s has forked, came out of the plugin function and is ended; end it with os._exit",
            os.getpid(),
            execution.name,
            exc_info=sys.exc_info()[0] is not None,
        )
        os._exit(1)


def _write_lines(execution: Execution, session: Session) -> None:
    """Let log entries be committed together with the changes that they speak of, such as a new step."""
    with execution.writing:
        lines = execution.take_lines()
        try:
            session.flush()
            tasklog.append(session.connection(), execution.ref.task_id, lines)
            if lines:
                events.note(session, execution.ref.task_id, TaskEvent.DETAILS)
        except BaseException:
            execution.lines.extendleft(reversed(lines))
            raise


def _is_bound(task: Task[Any, Any]) -> bool:
    return not isinstance(inspect.getattr_static(type(task), "run"), staticmethod)


def _is_followed(request: Any) -> bool:
    # A `request.group` does not count: the body of a chord has one too, and nothing follows that (celery 5.7).
    return any(getattr(request, name, None) for name in ("chain", "chord", "callbacks"))


def is_plugin_task(task: object) -> bool:
    """Tell whether a Celery task was made by `plugin_task`."""
    return isinstance(task, PluginTask) and task.plugin_function is not None


def find_plugin_task(app: Celery, name: object) -> PluginTask | None:
    """Return the plugin task of that name which the app knows, else None."""
    task = app.tasks.get(name) if isinstance(name, str) else None
    return cast(PluginTask, task) if is_plugin_task(task) else None


def check_arguments(task: PluginTask, args: Any, kwargs: Any) -> None:
    """Check arguments against the function of a plugin task.

    Raises:
        ArgumentsError: Naming task, what is wrong, and the signature.
    """
    try:
        bind_arguments(task.plugin_signature, tuple(args), kwargs)
    except TypeError as exc:
        raise ArgumentsError(
            f"arguments do not fit {task.name}{task.plugin_signature}: {exc}; nothing was written or sent"
        ) from exc
