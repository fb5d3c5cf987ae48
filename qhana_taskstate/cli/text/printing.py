"""Prints JSON and styled lines, with colours where a terminal shows them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, cast

import click

from ...states import TaskStatus


def painter(ctx: click.Context) -> Callable[[str], str]:
    colours = {TaskStatus.SUCCESS: "green", TaskStatus.PENDING: "cyan", "RUNNING": "cyan", "QUEUED": "cyan"}
    colours |= {"told": "green", "due": "cyan", "calling": "cyan"}
    neutral = {"RETRY", "IGNORED", "waiting"}

    def paint(word: str) -> str:
        colour = "yellow" if word in neutral else colours.get(word, "red")
        return cast(str, ctx.obj.style(word, fg=colour))

    return paint


def print_json(value: Any) -> None:
    click.echo(json.dumps(value, indent=2))


def print_lines(lines: Sequence[str]) -> None:
    click.echo("\n".join(lines))
