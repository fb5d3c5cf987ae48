"""Lines that fit into a terminal, whatever its width and encoding."""

from __future__ import annotations

import io

import pytest

from qhana_taskstate.cli.text.terminal import soften, wrapped


@pytest.mark.parametrize(
    ("encoding", "written"), [("ascii", "`- a ... \\xe9 \\u20ac"), ("latin-1", "`- a ... é \\u20ac")]
)
def test_what_an_encoding_lacks_is_written_otherwise(encoding: str, written: str) -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding)

    soften(stream, io.StringIO())
    stream.write("└─ a … é €")
    stream.flush()

    assert raw.getvalue().decode(encoding) == written


def test_long_lines_go_on_below_their_own_text() -> None:
    line = "  ├─ work  SUCCESS  on celery@host  waited 0.01 s  ran 0.02 s"

    assert wrapped([line, "short"], 40) == [
        "  ├─ work  SUCCESS  on celery@host",
        "  │    waited 0.01 s  ran 0.02 s",
        "short",
    ]


def test_a_word_that_is_too_long_is_broken_and_colours_take_no_room() -> None:
    assert wrapped(["  " + "x" * 50], 30) == ["  " + "x" * 28, "    " + "x" * 22]
    coloured = "task 1  \x1b[32mSUCCESS\x1b[0m  0123456789"
    assert wrapped([coloured], 27) == [coloured]
