"""Which frames of a traceback are kept."""

from __future__ import annotations

from qhana_taskstate.recording.exits.traceback import beginning_at_plugin

HEAD = "Traceback (most recent call last):\n"
CELERY = '  File "/v/site-packages/celery/app/trace.py", line 479, in trace_task\n    R = fun()\n        ^^^\n'
OURS = '  File "/v/lib/python3.11/site-packages/qhana_taskstate/plugin.py", line 7, in __call__\n    return call()\n'
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
