"""The application of `celery -A worker taskstate serve`: the blueprint alone, open to this machine or with a token."""

from __future__ import annotations

from collections.abc import Set
from functools import partial
from typing import Final
from urllib.parse import urlsplit

from flask import Flask, Response, request
from webargs.flaskparser import abort
from werkzeug.exceptions import HTTPException

from ...facade import TaskState
from ..blueprint import task_blueprint
from ..pages.login import Login
from ..problems import as_json

#: Names under which this machine is asked without a token. Another site's page can make a browser ask an address of
#: this machine under a name of its own (DNS rebinding), which is refused.
_OWN_NAMES: Final = frozenset({"localhost", "127.0.0.1", "::1"})


def _everybody() -> bool:
    return True


def create_app(taskstate: TaskState) -> Flask:
    """Make the application.

    The settings `taskstate_web_token` and `taskstate_web_files_root` say who may use it and which files it sends.

    Args:
        taskstate: Whose tasks to show.
    """
    settings = taskstate.settings
    app = Flask("qhana_taskstate.web", static_folder=None)
    # Models belong to the `TaskState` of the current app, and a thread of a server has none of its own (celery 5.7).
    app.before_request(taskstate.app.set_current)
    login = None if settings.web_token is None else Login(settings.web_token)
    check = _everybody if login is None else login.check
    public = [] if settings.public_url is None else [urlsplit(settings.public_url)]
    blueprint = task_blueprint(
        taskstate,
        may_read=check,
        may_change=check,
        files_root=settings.web_files_root,
        own_origins=[f"{url.scheme}://{url.netloc}" for url in public],
        login=login,
    )
    if login is None:
        app.before_request(partial(_check_name, _OWN_NAMES | {url.hostname for url in public}))
    app.register_blueprint(blueprint)
    app.register_error_handler(HTTPException, _as_json)
    return app


def _check_name(names: Set[str | None]) -> None:
    try:
        asked = urlsplit(f"//{request.headers.get('Host', '')}").hostname
    except ValueError:
        asked = None
    if asked not in names:
        abort(400, message="This server answers to the names of its own machine; set taskstate_web_token for others.")


def _as_json(error: HTTPException) -> Response:
    return as_json(error)
