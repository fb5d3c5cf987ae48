"""What a release consists of, as far as it is known without building one; `tests.packaging.release` builds it in CI."""

from __future__ import annotations

import re
from datetime import date
from pathlib import Path

from tests.packaging import release

#: The sections of Keep a Changelog 1.1.0, and what comes before them.
_SECTIONS = {"Upgrade notes", "Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def _changelog() -> str:
    return (release.ROOT / "CHANGELOG.md").read_text()


def test_each_extra_is_tried_or_a_tool_of_those_who_work_here() -> None:
    assert set(release.EXTRAS) == set(release.extras_for_users())


def test_ci_builds_and_tries_what_is_released() -> None:
    assert f"-m {release.__name__}\n" in (release.ROOT / ".ci" / "run").read_text()


def test_the_newest_version_of_the_changelog_is_the_declared_one() -> None:
    found = re.findall(r"^## \[(.*?)\](?: - (.*))?$", _changelog(), re.MULTILINE)
    assert found[0] == ("Unreleased", "")
    assert found[1][0] == release.project()["version"]
    days = [date.fromisoformat(day) for _, day in found[1:]]
    assert days == sorted(days, reverse=True)


def test_the_changelog_has_the_sections_that_people_know() -> None:
    assert set(re.findall(r"^### (.*)$", _changelog(), re.MULTILINE)) <= _SECTIONS


def test_a_file_that_is_missing_or_unknown_is_named() -> None:
    assert release._compared("wheel", {"a.py", "b.py"}, {"b.py", "c.py"}) == [
        "wheel lacks c.py",
        "wheel holds a.py, which git does not know",
    ]


def test_failed_commands_are_told(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    told = release.Environment(tmp_path).try_out(("echo first", "echo second; false"))
    assert told is not None and "second" in told
