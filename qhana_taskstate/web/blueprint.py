"""The blueprint that a host application mounts."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from flask import request
from flask_smorest import Blueprint
from werkzeug.exceptions import HTTPException

from ..errors import TaskStateError
from ..facade import TaskState
from ..facade import taskstate as of_process
from .access import Access, Check, nobody
from .api.downloads import FileDownload
from .api.health import Health
from .api.metrics import Metrics
from .api.resource import Resource
from .api.streams import Events
from .api.tasks import Tasks
from .faults import Faults
from .files import Files, FileUrl
from .marks.bodies import Bodies
from .marks.watcher import Watcher
from .pages.list import Pages
from .pages.login import Login
from .pages.openapi import OpenApi
from .pages.task import TaskPage
from .site import Site

#: The longest body of a request, in bytes.
_MOST_BODY: Final = 64 * 1024


def task_blueprint(
    taskstate: TaskState | None = None,
    *,
    may_read: Check = nobody,
    may_change: Check = nobody,
    file_url: FileUrl | None = None,
    files_root: str | Path | None = None,
    own_origins: Iterable[str] = (),
    login: Login | None = None,
    name: str = "taskstate",
) -> Blueprint:
    """Make the blueprint: the task resource, the page, and all that belongs to them. Mount it once.

    Args:
        taskstate: Whose tasks to show; by default the process's own.
        may_read: Is called before anything is shown; returns True for yes. Something falsy is 403, anything else
            (a redirect to a login, say) is the response. By default nobody may.
        may_change: The same, before anything is changed: subscribe, cancel, start again, replay.
        file_url: Tells where a `TaskFile` of the host's own store is found; None takes the default, which is the
            stored URL for `url_file_store` and an address of this blueprint for local files.
        files_root: Folder below which local output files must be to be sent. By default none is sent.
        own_origins: Origins (`https://jobs.example.org`) whose pages may make changes although the request names
            another host, because a proxy changed it.
        login: A form for a token, that belongs to the two checks; for a server of our own.
        name: Name of the blueprint.

    Returns:
        A flask-smorest blueprint; `app.register_blueprint(it, url_prefix="/jobs")` and `api.register_blueprint` work.
    """
    shown = of_process if taskstate is None else taskstate

    def found() -> TaskState:
        return shown

    site = Site(
        taskstate=found,
        access=Access(may_read, may_change, frozenset(own_origins)),
        files=Files(None if files_root is None else Path(files_root), file_url),
        bodies=Bodies(),
        watcher=Watcher(found),
    )
    blueprint = Blueprint(
        name,
        __name__,
        template_folder="templates",
        static_folder="static",
        static_url_path="/taskstate-static",
        description="Tasks and their state.",
    )
    blueprint.before_request(_limit_body)
    blueprint.before_request(site.access.check)
    faults = Faults(site)
    blueprint.register_error_handler(HTTPException, faults.show)
    blueprint.register_error_handler(TaskStateError, faults.explain)
    Resource(site).register(blueprint)
    Tasks(site).register(blueprint)
    Events(site).register(blueprint)
    FileDownload(site.files).register(blueprint)
    Health(site).register(blueprint)
    Metrics(site).register(blueprint)
    Pages(site).register(blueprint)
    TaskPage(site).register(blueprint)
    OpenApi(site, blueprint).register(blueprint)
    if login is not None:
        login.register(blueprint, site)
    return blueprint


def _limit_body() -> None:
    request.max_content_length = _MOST_BODY
