"""What all views of one mounted blueprint share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from flask import request

from ..facade import TaskState
from .access import Access
from .files import Files
from .marks.bodies import Bodies
from .marks.watcher import Watcher


@dataclass(frozen=True, slots=True)
class Site:
    """One mounted blueprint, kept for as long as the application.

    Attributes:
        taskstate: Returns the `TaskState` whose tasks are shown.
        access: Who may do what.
        files: Where output files are.
        bodies: Task resources as they were last sent.
        watcher: Looks for changes that open streams are told of.
    """

    taskstate: Callable[[], TaskState]
    access: Access
    files: Files
    bodies: Bodies
    watcher: Watcher

    def base(self, path: str) -> str:
        """Return where this blueprint is found, without a slash at the end.

        Args:
            path: What follows it in the URL of the current request.
        """
        public = self.taskstate().settings.public_url
        return public.rstrip("/") if public is not None else request.base_url.removesuffix(path).rstrip("/")
