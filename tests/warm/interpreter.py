"""The interpreter that is forked: `python interpreter.py FD`, with one end of a socket pair.

Each message holds what `supervisor.py` is told, the environment and the folder; with it come the descriptors of the
status, of standard output and of standard error. The answer is the pid of the supervisor. It ends with its client.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import runpy
import signal
import socket
import sys
import time
import traceback
import types
from typing import Any

from qhana_taskstate.testing.process import supervisor

#: What workers and commands of Celery import at the latest when they start; nothing of the tests.
MODULES = (
    "celery.app.amqp",
    "celery.app.control",
    "celery.app.events",
    "celery.app.log",
    "celery.apps.worker",
    "celery.backends.redis",
    "celery.bin.celery",
    "celery.concurrency.prefork",
    "celery.concurrency.solo",
    "celery.concurrency.thread",
    "celery.events.state",
    "celery.fixups.django",
    "celery.loaders.app",
    "celery.worker.autoscale",
    "celery.worker.components",
    "celery.worker.consumer",
    "celery.worker.control",
    "celery.worker.strategy",
    "kombu.transport.memory",
    "kombu.transport.pyamqp",
    "kombu.transport.redis",
    "psycopg",
    "pymysql",
    "qhana_taskstate",
    "qhana_taskstate.cli",
    "sqlalchemy.dialects.mysql.pymysql",
    "sqlalchemy.dialects.postgresql.psycopg",
    "sqlalchemy.dialects.sqlite.pysqlite",
)


def serve(connection: socket.socket) -> None:
    """Fork for each message until the client is gone; returns in a fork alone, to run what it was told."""
    # Nobody waits for the supervisors.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        message, descriptors, _flags, _address = socket.recv_fds(connection, 1 << 20, 3)
        if not message:
            os._exit(0)
        told = json.loads(message)
        pid = os.fork()
        if pid == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            connection.close()
            _become_supervisor(told, *descriptors)
        for descriptor in descriptors:
            os.close(descriptor)
        connection.sendall(str(pid).encode())


def _become_supervisor(told: dict[str, Any], status: int, output: int, error: int) -> None:
    os.setsid()
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(output, 1)
    os.dup2(error, 2)
    for descriptor in {output, error} - {1, 2}:
        os.close(descriptor)
    os.chdir(told["folder"])
    os.environ.clear()
    os.environ.update(told["environment"])
    time.tzset()
    uid, gid, folder, *command = told["supervised"]
    parent = str(os.getppid())
    os._exit(supervisor.main([str(status), parent, uid, gid, folder, *command], execute=_execute))


def _execute(command: list[str]) -> None:
    """Run `PYTHON -m MODULE ...` or `PYTHON -c CODE ...` in this process, as a new interpreter would; ends it."""
    _python, option, what, *arguments = command
    paths = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    sys.path[:] = [os.getcwd() if option == "-m" else "", *paths, *_PATH]
    sys.argv[:], sys.orig_argv[:] = [option, *arguments], command
    sys.dont_write_bytecode = bool(os.environ.get("PYTHONDONTWRITEBYTECODE"))
    importlib.invalidate_caches()
    try:
        if option == "-m":
            runpy.run_module(what, run_name="__main__", alter_sys=True)
        else:
            main = sys.modules["__main__"] = types.ModuleType("__main__")
            exec(compile(what, "<string>", "exec"), main.__dict__)  # noqa: S102  (the test's own command)
    except OSError:
        # The supervisor would take it for one of its own.
        traceback.print_exc()
        sys.exit(1)
    sys.exit(0)


#: Where modules are found beside the folder that a command runs in and PYTHONPATH, which this process is not given.
_PATH: list[str] = []


if __name__ == "__main__":
    # Without the folder of this script.
    _PATH += sys.path[1:]
    for _name in MODULES:
        importlib.import_module(_name)
    gc.collect()
    gc.freeze()
    serve(socket.socket(fileno=int(sys.argv[1])))
