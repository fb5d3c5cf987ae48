"""The code blocks of the README and of the documentation. A comment announces each: `<!-- block: PROJECT, ROLE -->`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

ROOT = Path(__file__).resolve().parents[2]

README: Final = "README.md"

_FENCE = re.compile(
    r"(?:^<!-- block: (?P<project>\w+)[, ](?P<role>[^>]*?) -->\n)?^```(?P<language>\w*)\n(?P<code>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)

#: Languages of pictures, which are no code.
_PICTURES: Final = frozenset(("mermaid",))


@dataclass(frozen=True)
class Block:
    """One code block.

    Attributes:
        project: The project that it belongs to; "" if nothing announces it.
        role: What it is there: "file NAME", "shell", "python", "output of COMMAND".
        language: What the fence says.
        code: The text between the fences.
        page: The page that it stands on, relative to the repository.
    """

    project: str
    role: str
    language: str
    code: str
    page: str


@cache
def pages() -> tuple[str, ...]:
    """Return the README and the pages of the documentation, without the decisions."""
    found = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md"))
    return README, *(name for name in found if not name.startswith("docs/adr/"))


def read_text(page: str = README) -> str:
    """Return the text of a page."""
    return (ROOT / page).read_text(encoding="utf-8")


@cache
def read_blocks(page: str | None = None) -> tuple[Block, ...]:
    """Return the code blocks of a page, or of all pages, in their order."""
    return tuple(
        Block(found["project"] or "", (found["role"] or "").strip(), found["language"], found["code"], name)
        for name in (pages() if page is None else (page,))
        for found in _FENCE.finditer(read_text(name))
        if found["language"] not in _PICTURES
    )


def blocks_of(project: str) -> list[Block]:
    """Return the code blocks of a project in their order."""
    return [block for block in read_blocks() if block.project == project]


def file_of(project: str, name: str) -> str:
    """Return the text of a file of a project. Where it stands twice it is the same."""
    (code,) = {block.code for block in blocks_of(project) if block.role == f"file {name}"}
    return code


def command(name: str) -> str:
    """Return the command line of a name: demo, test, install, enter. Where it stands twice it is the same."""
    (code,) = {block.code for block in blocks_of("command") if block.role == name}
    return code.strip()


def normalised(output: str) -> str:
    """Replace what differs from run to run: times, durations, the name of the host."""
    text = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC", "TIME", output)
    text = re.sub(r"\d+(\.\d+)? s\b", "SECONDS", text)
    text = re.sub(r"celery@\S+", "celery@HOST", text)
    return "\n".join(line.rstrip() for line in text.strip().splitlines())
