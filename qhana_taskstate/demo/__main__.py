"""`python -m qhana_taskstate.demo`: real plugin tasks on a real worker, watched from PENDING to their end."""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from kombu.exceptions import OperationalError as BrokerError
from rich.console import Console
from rich.markup import escape

from qhana_taskstate.errors import TaskStateError

from . import jobs
from .deployment import Deployment, deployed
from .screen import Screen, make_console

#: Seconds between two looks whether the worker still runs, while the page is looked at.
_LOOK_SECONDS = 0.5

_EXIT_CODES = """exit codes:
  0    every task ended as it should (one of them as ERROR), and a webhook told of each end
  1    a task ended otherwise, or no webhook told of its end
  2    the demo could not run
  130  it was interrupted
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo.

    Args:
        arguments: Of the command line; None takes those of the process.

    Returns:
        The exit code.
    """
    options = _parser().parse_args(arguments)
    # Whoever ends the demo politely gets the same tidying up as with Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    console = make_console()
    own_folder = options.output is None
    folder = Path(tempfile.mkdtemp(prefix="taskstate-demo-")) if own_folder else Path(options.output).absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        good = _run(console, options, folder)
    except KeyboardInterrupt:
        console.print("\ninterrupted; everything is stopped")
        code = 130
    except (TaskStateError, BrokerError, OSError) as exc:
        print(f"the demo could not run: {exc}", file=sys.stderr)
        code = 2
    else:
        console.print(f"outputs, database and worker log: {escape(str(folder))}", soft_wrap=True)
        return 0 if good else 1
    if own_folder:
        shutil.rmtree(folder, ignore_errors=True)
    return code


def _run(console: Console, options: argparse.Namespace, folder: Path) -> bool:
    sources = options.sources or [jobs.shipped_data_set()]
    interactive = sys.stdin.isatty() and console.is_terminal
    with deployed(folder, concurrency=options.concurrency) as deployment:
        receiver = deployment.receiver
        screen = Screen(console, given_answer=options.answer, interactive=interactive, receiver=receiver)
        console.print(f"the page is at [bold]{deployment.page}[/]", soft_wrap=True)
        for line in (
            f"broker {deployment.broker}",
            f"database {deployment.database}",
            f"webhooks are received at {receiver.href()}",
            f"a worker of {options.concurrency} processes; Ctrl-C stops all of it",
        ):
            # Addresses and paths can be copied whole, however narrow the terminal.
            console.print(escape(line), soft_wrap=True)
        started = jobs.start_jobs(sources, folder, receiver.href())
        try:
            screen.follow(started, deployment.check)
            all_told = screen.hear_ends(started, deployment.check)
        except BaseException:
            # Where that fails too, the first error is the one to tell.
            with suppress(TaskStateError, BrokerError, OSError):
                jobs.cancel(started, "the demo was interrupted")
            raise
        good = screen.summarise(started) and all_told
        if interactive:
            _stay(console, deployment)
        return good


def _stay(console: Console, deployment: Deployment) -> None:
    """Keep everything up, so that the page can be looked at, until Ctrl-C."""
    console.print(f"the page stays at [bold]{deployment.page}[/] until Ctrl-C", soft_wrap=True)
    try:
        while True:
            deployment.check()
            time.sleep(_LOOK_SECONDS)
    except KeyboardInterrupt:
        # The terminal has printed "^C" on this line.
        console.print()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m qhana_taskstate.demo",
        description="Cluster the entities of a CSV file with plugin tasks on a real Celery worker, and watch them. "
        "Brings a Redis and an SQLite database of its own, unless CELERY_BROKER_URL and TASKSTATE_DATABASE_URL "
        "name others, a receiver that webhooks tell of the tasks, and a page that shows them, until Ctrl-C "
        "where it runs in a terminal.",
        epilog=_EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "sources",
        nargs="*",
        metavar="FILE_OR_URL",
        help="CSV file with a header line and two or more columns of numbers (default: 344 penguins)",
    )
    parser.add_argument(
        "--answer", type=int, metavar="K", help="how many clusters to make (default: ask; 3 where nobody can answer)"
    )
    parser.add_argument("--output", metavar="FOLDER", help="where to put all files (default: a new temporary folder)")
    parser.add_argument(
        "--concurrency", type=_count, default=2, metavar="N", help="processes of the worker (default 2)"
    )
    return parser


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


if __name__ == "__main__":
    sys.exit(main())
