"""The code blocks of the README. Each is announced by a comment: `<!-- block: PROJECT, ROLE -->`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

_FENCE = re.compile(
    r"(?:^<!-- block: (?P<project>\w+)[, ](?P<role>[^>]*?) -->\n)?^```(?P<language>\w*)\n(?P<code>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    """One code block.

    Attributes:
        project: The project that it belongs to; "" if nothing announces it.
        role: What it is there: "file NAME", "shell", "python", "output of COMMAND".
        language: What the fence says.
        code: The text between the fences.
    """

    project: str
    role: str
    language: str
    code: str


def read_text() -> str:
    """Return the README."""
    return (ROOT / "README.md").read_text(encoding="utf-8")


def read_blocks() -> list[Block]:
    """Return all code blocks in their order."""
    return [
        Block(found["project"] or "", (found["role"] or "").strip(), found["language"], found["code"])
        for found in _FENCE.finditer(read_text())
    ]


def blocks_of(project: str) -> list[Block]:
    """Return the code blocks of a project in their order."""
    return [block for block in read_blocks() if block.project == project]


def command(name: str) -> str:
    """Return the command line of a name: demo, test, install, enter."""
    (block,) = [block for block in blocks_of("command") if block.role == name]
    return block.code.strip()


def normalised(output: str) -> str:
    """Replace what differs from run to run: times, durations, the name of the host."""
    text = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC", "TIME", output)
    text = re.sub(r"\d+(\.\d+)? s\b", "SECONDS", text)
    text = re.sub(r"celery@\S+", "celery@HOST", text)
    return "\n".join(line.rstrip() for line in text.strip().splitlines())
