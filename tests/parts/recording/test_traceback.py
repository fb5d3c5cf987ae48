"""Which frames of a traceback are kept."""

from __future__ import annotations

from pathlib import Path

import celery.app.trace
import pytest

import qhana_taskstate
from qhana_taskstate.recording.exits.traceback import beginning_at_plugin

HEAD = "Traceback (most recent call last):\n"
CELERY = f'  File "{celery.app.trace.__file__}", line 479, in trace_task\n    R = fun()\n        ^^^\n'
FOLDER = Path(qhana_taskstate.__file__).parent
OURS = f'  File "{FOLDER / "plugin.py"}", line 7, in __call__\n    return call()\n'
PLUGIN = '  File "/home/me/plugin.py", line 3, in work\n    parse(text)\n'
LIBRARY = '  File "/v/lib/python3.11/site-packages/pandas/io.py", line 9, in parse\n    raise ValueError("no")\n'
BETWEEN = "\nThe above exception was the direct cause of the following exception:\n\n"


def test_frames_before_the_plugin_are_left_out() -> None:
    text = HEAD + CELERY + OURS + PLUGIN + OURS + LIBRARY + "ValueError: no\n"

    assert beginning_at_plugin(text) == HEAD + PLUGIN + OURS + LIBRARY + "ValueError: no\n"


def test_each_cause_is_shortened() -> None:
    text = HEAD + PLUGIN + "KeyError: 1\n" + BETWEEN + HEAD + CELERY + PLUGIN + "ValueError: no\n"

    assert beginning_at_plugin(text) == HEAD + PLUGIN + "KeyError: 1\n" + BETWEEN + HEAD + PLUGIN + "ValueError: no\n"


def test_a_traceback_without_other_frames_stays_whole() -> None:
    for text in (HEAD + CELERY + OURS + "TypeError: no\n", "ValueError: no", ""):
        assert beginning_at_plugin(text) == text


def test_frames_without_a_head_are_shortened() -> None:
    assert beginning_at_plugin(CELERY + PLUGIN) == PLUGIN


@pytest.mark.parametrize("path", [FOLDER / "demo" / "plugin.py", FOLDER.parent / "my_celery" / "work.py"])
def test_plugin_beside_the_package_is_a_plugin_and_so_is_the_demo(path: Path) -> None:
    plugin = f'  File "{path}", line 3, in work\n    parse(text)\n'

    assert (
        beginning_at_plugin(HEAD + CELERY + plugin + OURS + "ValueError: no\n")
        == HEAD + plugin + OURS + "ValueError: no\n"
    )


@pytest.mark.parametrize("folder", ["qhana_taskstate", "celery"])
def test_folder_with_the_name_of_a_package_is_somebody_elses(folder: str) -> None:
    plugin = f'  File "/home/me/{folder}/my_plugin/plugin.py", line 3, in work\n    parse(text)\n'

    assert beginning_at_plugin(HEAD + CELERY + plugin + LIBRARY) == HEAD + plugin + LIBRARY
