"""What type checkers see of plugin tasks: the function's own arguments in every way to call or start it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, TypeVar, overload

P = ParamSpec("P")
Later = ParamSpec("Later")
R = TypeVar("R", covariant=True)

if TYPE_CHECKING:
    from celery import Signature, Task
    from celery.result import AsyncResult, EagerResult

    from ..models.task import ProcessingTask

    class StartableTask(Task[P, R], Generic[P, R]):
        """A plugin task. Its class at run time is a Celery task too; this one exists for type checkers only.

        All that Celery's stubs say is repeated here: who has not installed them (`celery-types`) is told of a wrong
        argument all the same.
        """

        name: str

        @property
        def processing_task(self) -> ProcessingTask:
            """The `ProcessingTask` of the running execution."""

        def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
            """Call the function; a coroutine function gives a coroutine."""

        def start(self, *args: P.args, **kwargs: P.kwargs) -> ProcessingTask:
            """Start it as a new task."""

        def start_on_commit(self, *args: P.args, **kwargs: P.kwargs) -> ProcessingTask | None:
            """Start it as a new task once the open transaction of the host is committed."""

        def delay(self, *args: P.args, **kwargs: P.kwargs) -> AsyncResult[R]:
            """Send it, as Celery does."""

        def apply_async(self, args: Any = None, kwargs: Any = None, **options: Any) -> AsyncResult[R]:  # type: ignore[override]
            """Send it with options, as Celery does."""

        def apply(self, args: Any = None, kwargs: Any = None, **options: Any) -> EagerResult[R]:  # type: ignore[override]
            """Run it here, as Celery does."""

        @overload
        def s(self, *args: P.args, **kwargs: P.kwargs) -> Signature[R]:
            """Make a signature with all arguments."""

        @overload
        def s(
            self: StartableTask[Concatenate[Any, Later], R], *args: Later.args, **kwargs: Later.kwargs
        ) -> Signature[R]:
            """Make a signature whose first argument is the result of what runs before it."""

        def s(self, *args: Any, **kwargs: Any) -> Signature[R]:
            """Make a signature."""

        def si(self, *args: P.args, **kwargs: P.kwargs) -> Signature[R]:
            """Make a signature that takes no result of what runs before it."""

else:

    class StartableTask:
        """Stands in annotations for a plugin task, `StartableTask[[int], str]`; nothing is an instance of it."""

        def __class_getitem__(cls, item: object) -> type:
            return cls
