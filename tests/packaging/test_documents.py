"""The documents name what is there: modules, folders, decisions, tests."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "qhana_taskstate"
FOLDERS = sorted(path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists())
DECISIONS = sorted(path.name for path in (ROOT / "docs" / "adr").glob("0*.md"))


def _text(name: str) -> str:
    return (ROOT / name).read_text()


def _missing(text: str) -> list[str]:
    """Return the names in backticks that begin like a path in the package and lead nowhere."""
    names = set(re.findall(r"`([a-z_]+(?:/[a-z_]+)+)`", text))
    inside = {name for name in names if name.split("/")[0] in FOLDERS}
    return sorted(name for name in inside if not (PACKAGE / name).is_dir() and not (PACKAGE / f"{name}.py").exists())


def test_each_module_that_the_architecture_names_exists() -> None:
    text = _text("docs/architecture.md")
    assert len(re.findall(r"`[a-z_]+/[a-z_/]+`", text)) > 50
    assert _missing(text) == []


def test_a_module_that_does_not_exist_is_seen() -> None:
    assert _missing("`store/nothing` and `store/task_end`, `nowhere/at_all`") == ["store/nothing"]


def test_the_architecture_shows_each_folder_in_one_picture() -> None:
    (picture,) = re.findall(r"```mermaid\n(.*?)```", _text("docs/architecture.md"), re.DOTALL)
    for folder in FOLDERS:
        assert re.search(rf"\b{folder}\b", picture), folder


@pytest.mark.parametrize("name", DECISIONS)
def test_each_module_that_a_decision_names_exists(name: str) -> None:
    assert _missing(_text(f"docs/adr/{name}")) == []


def test_the_list_of_decisions_is_whole_and_in_order() -> None:
    assert re.findall(r"^\| \[\d+\]\((.*?)\)", _text("docs/adr/README.md"), re.MULTILINE) == DECISIONS


def test_the_table_of_tests_names_each_folder_of_the_package() -> None:
    rows = re.findall(r"^\| (`.*?) \| `(.*?)` \| (\d+) \|$", _text("CONTRIBUTING.md"), re.MULTILINE)
    named = {name.rstrip("/") for row in rows for name in re.findall(r"`([a-z_]+/)`", row[0])}
    assert named == set(FOLDERS)


def test_the_table_of_tests_names_tests_that_exist() -> None:
    paths = set(re.findall(r"tests/[a-z_/.]+", _text("CONTRIBUTING.md")))
    assert len(paths) > 15
    assert sorted(path for path in paths if not (ROOT / path.rstrip(".")).exists()) == []


def test_each_page_stands_in_the_navigation_of_the_site() -> None:
    named = set(re.findall(r"[A-Za-z0-9/-]+\.md", _text("mkdocs.yml").partition("\nnav:\n")[2]))
    pages = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    assert {page for page in pages if not page.startswith("adr/0")} == named
