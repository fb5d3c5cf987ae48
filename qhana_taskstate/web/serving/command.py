"""`celery -A worker taskstate serve`: the pages and the task resource on a server of their own."""

from __future__ import annotations

import ipaddress
import os
import sys
import threading
import time
from typing import Any, Final

import click
from flask import Flask
from gunicorn.app.base import BaseApplication

from ... import registry
from ...errors import NotConfiguredError, SettingsError
from ...facade import TaskState
from .application import create_app

#: Says that gevent has changed the standard library, so that streams take no thread each. It must do so before
#: anything else is imported, hence in a program that begins anew.
_BEGUN_ANEW: Final = "TASKSTATE_SERVE_BEGUN_ANEW"
_BEGIN: Final = "from gevent import monkey; monkey.patch_all(); from celery.__main__ import main; main()"

#: Open connections of one process.
_CONNECTIONS: Final = 2500


@click.command("serve")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen at.")
@click.option("--port", type=click.IntRange(1, 65535), default=5550, show_default=True, help="Port to listen at.")
@click.option("--processes", type=click.IntRange(min=1), default=1, show_default=True, help="How many processes serve.")
@click.pass_context
def serve(ctx: click.Context, /, host: str, port: int, processes: int, **_: Any) -> None:
    """Serve the page and the task resource, until interrupted.

    Without the setting taskstate_web_token only this machine is let in, and only a loopback address is listened at.
    """
    state = _taskstate(ctx)
    if state.settings.web_token is None and not _is_loopback(host):
        raise SettingsError(
            f"serve would show the tasks to everybody who reaches {host}; set taskstate_web_token "
            "(TASKSTATE_WEB_TOKEN or TASKSTATE_WEB_TOKEN_FILE), or listen at 127.0.0.1"
        )
    if os.environ.get(_BEGUN_ANEW) != str(os.getpid()):
        os.environ[_BEGUN_ANEW] = str(os.getpid())
        sys.stdout.flush()
        os.execv(sys.executable, [sys.executable, "-c", _BEGIN, *sys.argv[1:]])  # noqa: S606  (this very command)
    shown = f"[{host}]" if ":" in host else host
    click.echo(f"the page is at http://{shown}:{port}/")
    _Server(state, f"{shown}:{port}", processes).run()


def _taskstate(ctx: click.Context) -> TaskState:
    app = ctx.obj.app
    app.set_current()
    state: TaskState | None = registry.find(app)
    if state is None:
        raise NotConfiguredError(
            f"the Celery app {app.main!r} has no TaskState; make one where the app is: TaskState(app)"
        )
    return state


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


class _Server(BaseApplication):
    """gunicorn with our application."""

    def __init__(self, state: TaskState, bind: str, processes: int) -> None:
        self._state = state
        self._options = {
            "bind": bind,
            "workers": processes,
            "worker_class": "gevent",
            "worker_connections": _CONNECTIONS,
            # Open streams hold no shutdown up.
            "graceful_timeout": 3,
            "loglevel": "warning",
            "proc_name": "taskstate serve",
        }
        super().__init__()

    def load_config(self) -> None:
        """Set gunicorn's options; its own files and environment are not read."""
        for name, value in self._options.items():
            self.cfg.set(name, value)

    def load(self) -> Flask:
        """Make the application, in each serving process."""
        threading.Thread(target=_do_upkeep, args=(self._state,), name="taskstate-upkeep", daemon=True).start()
        return create_app(self._state)


def _do_upkeep(state: TaskState) -> None:
    """Notice lost work though no worker is left that would."""
    while True:
        state.upkeep(force=False)
        time.sleep(state.parts.upkeep.interval_seconds)
