"""pyproject.toml, constraints.txt and .ci/run say what the rest of the project relies on."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from importlib.metadata import entry_points, version
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    loaded: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return loaded


@pytest.fixture(scope="module")
def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return dict(line.split("==") for line in lines if line and not line.startswith("#"))


def test_the_installed_version_is_the_declared_one(project: dict[str, Any]) -> None:
    assert version("qhana_taskstate") == project["version"]


def test_celery_finds_the_taskstate_command() -> None:
    (entry,) = entry_points(group="celery.commands", name="taskstate")
    assert entry.load().name == "taskstate"


def test_the_package_is_marked_as_typed() -> None:
    assert (ROOT / "qhana_taskstate" / "py.typed").exists()


def test_constraints_hold_exact_versions_and_no_address() -> None:
    text = (ROOT / "constraints.txt").read_text()
    assert "://" not in text
    for line in text.splitlines():
        assert line.startswith("#") or re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.]+", line), line


@pytest.mark.parametrize("name", ["packaging", "python-dateutil"])
def test_what_celery_fixes_itself_is_not_constrained(pins: dict[str, str], name: str) -> None:
    assert name not in pins


def test_every_direct_dependency_is_constrained(project: dict[str, Any], pins: dict[str, str]) -> None:
    wanted = [
        *project["dependencies"],
        *(line for extra in project["optional-dependencies"].values() for line in extra),
    ]
    names = {re.split(r"[\[<>=; ]", line)[0].lower().replace("_", "-") for line in wanted}
    known = {name.lower().replace("_", "-") for name in pins}
    assert names - known == {"qhana-taskstate"}


def test_ci_runs_the_second_command_of_the_readme() -> None:
    script = (ROOT / ".ci" / "run").read_text()
    commands = re.findall(r"^\s*(python3 -m venv \.venv &&.*)$", script, re.MULTILINE)
    assert len(commands) == 1

    readme = (ROOT / "README.md").read_text()
    blocks = re.findall(r"<!-- block: command (\w+) -->\n```sh\n(.*)\n```", readme)
    assert blocks[1] == ("test", commands[0])


@pytest.mark.parametrize("name", ["quick", "run", "versions"])
def test_scripts_of_ci_are_valid_shell(name: str) -> None:
    script = ROOT / ".ci" / name
    assert script.stat().st_mode & 0o111
    subprocess.run(["/bin/bash", "-n", str(script)], check=True)


def test_the_lowest_versions_are_those_that_the_project_declares(project: dict[str, Any]) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / ".ci" / "lowest")], check=True, capture_output=True, text=True, timeout=30
    )
    lowest = dict(line.split("==") for line in done.stdout.splitlines())
    for line in project["dependencies"]:
        name, bound = re.split(r"(?:\[.*\])?>=", line.split(",")[0])
        assert lowest[name] == bound
    assert {"psycopg", "pymysql", "gevent", "flask", "pytest"} <= lowest.keys()


def test_a_dependency_has_the_same_range_wherever_it_is_named(project: dict[str, Any]) -> None:
    # But for the extra of a host, which has versions of its own.
    extras = [lines for name, lines in project["optional-dependencies"].items() if name != "qhana"]
    lines = {line for extra in extras for line in extra} | {*project["dependencies"]}
    names = [re.split(r"[\[<>=]", line)[0].lower() for line in lines if not line.startswith("qhana_taskstate[")]
    assert sorted(names) == sorted(set(names))


def test_an_unknown_environment_is_refused() -> None:
    done = subprocess.run(
        [str(ROOT / ".ci" / "versions"), "oldest"], check=False, capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 2
    assert "unknown: oldest" in done.stderr


def test_the_readme_names_the_ranges_that_the_project_declares(project: dict[str, Any]) -> None:
    (text,) = re.findall(r"## Requirements\n\n(.*?)\n\n", (ROOT / "README.md").read_text(), re.DOTALL)
    words = " ".join(text.split())
    bounds = {re.split(r"[\[>]", line)[0].lower(): line for line in project["dependencies"]}
    assert bounds["celery"] == "celery[redis]>=5.5.3,<5.8" and "Celery 5.5.3 to 5.7" in words
    assert bounds["sqlalchemy"] == "SQLAlchemy>=2.0.41,<2.2" and "SQLAlchemy 2.0.41 to 2.1" in words
    assert bounds["kombu"] == "kombu>=5.5.2" and "kombu (5.5.2 or newer)" in words
    assert bounds["redis"] == "redis>=4.5.2" and "redis-py (4.5.2 or newer)" in words
    assert "Python 3.11 to 3.13" in words
