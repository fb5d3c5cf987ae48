"""The group of commands, and how its errors are shown."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from typing import Any, Final, NamedTuple, NoReturn, cast

import click
from kombu.exceptions import KombuError
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from .. import registry
from ..errors import ArgumentsError, NotConfiguredError, SettingsError, TaskStateError
from .redaction import without_passwords
from .text.terminal import soften

_EXIT_CODES: Final = (
    "Exit codes: 0 done, and yes; 1 no, or failed (no such task, already ended, a task ended as ERROR, the database or "
    "the broker cannot be reached); 2 wrong usage or settings; 130 interrupted."
)


class Failure(click.ClickException):
    """An error as one line on standard error."""

    exit_code = 1

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))


class WrongUsage(Failure):
    exit_code = 2


class Interrupted(Failure):
    exit_code = 130


class _Extra(NamedTuple):
    name: str
    module: str


#: Commands of extras.
_OF_EXTRAS: Final = {"serve": _Extra("web", "qhana_taskstate.web.serving.command")}


class TaskStateGroup(click.Group):
    """A group whose commands show expected errors as one line without a traceback and without passwords."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands."""
        return sorted({*super().list_commands(ctx), *_OF_EXTRAS})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command; that of an extra is loaded now, since what it needs may not be installed."""
        extra = _OF_EXTRAS.get(cmd_name)
        if extra is None:
            return super().get_command(ctx, cmd_name)
        try:
            return cast(click.Command, getattr(importlib.import_module(extra.module), cmd_name))
        except ImportError as exc:
            missing = f"{cmd_name} needs the extra {extra.name}: pip install 'qhana_taskstate[{extra.name}]' ({exc})"

            def refuse(**_: Any) -> NoReturn:
                raise WrongUsage(missing)

            lenient = {"ignore_unknown_options": True, "allow_extra_args": True}
            return click.Command(cmd_name, callback=refuse, help=missing, context_settings=lenient)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command."""
        soften(sys.stdout, sys.stderr)
        try:
            return super().invoke(ctx)
        except (SettingsError, NotConfiguredError, ArgumentsError) as exc:
            raise WrongUsage(without_passwords(ctx, str(exc))) from exc
        except (TaskStateError, KombuError, OSError) as exc:
            raise Failure(without_passwords(ctx, str(exc))) from exc
        except SQLAlchemyError as exc:
            # Not its own text, which shows the statement and the values in it.
            cause = exc.orig if isinstance(exc, DBAPIError) and exc.orig is not None else exc
            told = f"the database {registry.get().database.name} refused: {type(cause).__name__}: {cause}"
            raise Failure(without_passwords(ctx, told)) from exc


@click.group("taskstate", cls=TaskStateGroup, epilog=_EXIT_CODES)
def taskstate(**_: Any) -> None:
    """Look at and steer tasks: durable state of whole jobs.

    The database is that of the app's TaskState. Only start, the part of cancel that reaches running workers, and the
    message that wakes the deliveries need the broker.
    """


def command(name: str) -> Callable[[Callable[..., Any]], click.Command]:
    return taskstate.command(name, epilog=_EXIT_CODES)


def write_error(line: str) -> None:
    click.echo(line, err=True)
