"""Spares the app of a test the tasks of other tests.

Celery makes each task that a process shares anew in each app. In a run of all tests that is more than a hundred, and an
app of nearly every second test. An app gets those of `tests` that the files of the test's folder, or of one above it,
name; those of other packages it always gets.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Final

import celery.app.base
from celery import Celery, _state

_ROOT: Final = Path(__file__).parent

#: The folder of the test that runs; None while something is made for several tests.
_folder: Path | None = None


@contextmanager
def sharing(folder: Path | None) -> Iterator[None]:
    """Let apps that are finalised in the block get the tasks for the tests of a folder, for all with None."""
    global _folder
    before, _folder = _folder, folder
    try:
        yield
    finally:
        _folder = before


def install() -> None:
    """Let Celery ask here when it finalises an app (celery 5.5 to 5.7)."""
    celery.app.base._announce_app_finalized = _announce  # type: ignore[attr-defined]  # not in the stubs


def _announce(app: Celery) -> None:
    for callback in set(_state._on_app_finalizers):  # type: ignore[attr-defined]  # not in the stubs
        if _folder is None or _is_known(_module_of(callback), _folder):
            callback(app)


@cache
def _module_of(callback: Callable[[Celery], Any]) -> str:
    found = (getattr(cell.cell_contents, "__module__", None) for cell in callback.__closure__ or ())
    return next((name for name in found if isinstance(name, str) and name.startswith("tests.")), "")


@cache
def _is_known(module: str, folder: Path) -> bool:
    package, _, name = module.rpartition(".")
    if not module:
        return True
    if name.startswith("test_"):
        return folder == _ROOT.parent.joinpath(*package.split("."))
    above = package.rpartition(".")[2]
    named = re.compile(rf"\b{above}\.{name}\b|\b{above} import (?:\([^)]*|[^\n]*)\b{name}\b")
    return any(named.search(text) for text in _texts(folder))


@cache
def _texts(folder: Path) -> list[str]:
    texts = [path.read_text() for path in folder.glob("*.py")]
    return texts if folder == _ROOT else texts + _texts(folder.parent)
