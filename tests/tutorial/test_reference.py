"""The lists of the reference are whole: settings, commands, calls, checks of the doctor, metrics."""

from __future__ import annotations

import inspect
import re

import click
from celery import Celery

from qhana_taskstate import TaskState
from qhana_taskstate.cli import group
from qhana_taskstate.cli.doctor import checks, examine
from qhana_taskstate.settings.values import Settings, setting_names
from qhana_taskstate.web.api import metrics

from .readme import read_text


def test_settings_are_listed_with_their_defaults() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \| .*? \|$", read_text("docs/reference/settings.md"), re.MULTILINE)
    listed = dict(rows)
    defaults = Settings()

    assert set(setting_names()) <= listed.keys()
    for name in setting_names():
        value = getattr(defaults, name)
        shown = (
            "nine waits, 5 s to a day"
            if name == "webhook_retry_schedule"
            else f"`{value}`"
            if value or value == 0
            else "none"
        )
        assert listed[name] == shown, name


def test_commands_are_listed() -> None:
    section = read_text("docs/reference/command-line.md")
    listed = {command.split()[0] for cell in re.findall(r"^\| (`.*?) \|", section, re.M) for command in _code(cell)}

    assert listed == set(group.taskstate.list_commands(click.Context(group.taskstate)))


def _code(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def test_calls_that_are_listed_exist() -> None:
    taskstate = TaskState(Celery("readme", set_as_current=False))
    section = read_text("docs/how-to/start-work.md")
    names = set(re.findall(r"`(?:await )?taskstate\.(\w+)\(", section))

    assert names == {
        "start",
        "astart",
        "await_end",
        "start_on_commit",
        "restart",
        "current",
        "wait",
        "cancel",
        "finish",
        "find",
        "describe",
        "close",
        "detached",
        "bound",
    }
    assert all(callable(getattr(taskstate, name)) for name in names)


def test_lines_of_the_doctor_are_explained() -> None:
    code = inspect.getsource(checks) + inspect.getsource(examine)
    known = set(re.findall(r'Finding\(\s*"([a-z ]+)"', code)) | set(re.findall(r'_reached\("([a-z]+)"', code))
    section = read_text("docs/operations/monitoring.md").partition("## The doctor")[2].partition("\n## ")[0]

    assert set(re.findall(r"^\| `([a-z ]+)` \|", section, re.MULTILINE)) == known


def test_metrics_are_listed() -> None:
    known = set(re.findall(r'"(taskstate_[a-z_]+)"', inspect.getsource(metrics)))
    section = read_text("docs/operations/monitoring.md").partition("## Metrics")[2].partition("\n## ")[0]

    assert {name for name in known if name in section} == known
