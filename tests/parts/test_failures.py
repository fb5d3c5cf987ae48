"""How errors read: causes, notes, groups, sizes, and nothing of a statement."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import PendingRollbackError
from sqlalchemy.orm import Session

from qhana_taskstate.failures import message_of, summary_of, without_statements
from qhana_taskstate.plugin.reporting.log_capture import _Formatter
from qhana_taskstate.texts import LONGEST_TEXT, cut


def raised(function: Callable[[], object]) -> BaseException:
    try:
        function()
    except BaseException as exc:
        return exc
    raise AssertionError("nothing was raised")


def wrap(outer: BaseException, cause: BaseException) -> BaseException:
    outer.__cause__ = cause
    return outer


def noted(exc: BaseException, *notes: str) -> BaseException:
    for note in notes:
        exc.add_note(note)
    return exc


def noted_error() -> Exception:
    exc = KeyError("b")
    exc.add_note("n")
    return exc


@pytest.mark.parametrize(
    ("exception", "told"),
    [
        (ValueError("bad"), "ValueError: bad"),
        (ValueError(), "ValueError"),
        (KeyError("k"), "KeyError: 'k'"),
        (noted(ValueError("bad"), "in row 7", "of x.csv"), "ValueError: bad\nnote: in row 7\nnote: of x.csv"),
        (wrap(RuntimeError("step"), ValueError("bad")), "RuntimeError: step\ncaused by ValueError: bad"),
        (
            wrap(RuntimeError("a"), wrap(OSError("b"), noted(ValueError("c"), "n"))),
            "RuntimeError: a\ncaused by OSError: b\ncaused by ValueError: c\nnote: n",
        ),
        (
            ExceptionGroup("several", [ValueError("a"), ExceptionGroup("inner", [noted_error()])]),
            "ExceptionGroup: several (2 sub-exceptions)\n- ValueError: a\n"
            "- ExceptionGroup: inner (1 sub-exception)\n  - KeyError: 'b'\n    note: n",
        ),
        (
            wrap(
                RuntimeError("x"), BaseExceptionGroup("g", [KeyboardInterrupt(), wrap(OSError("o"), ValueError("v"))])
            ),
            "RuntimeError: x\ncaused by BaseExceptionGroup: g (2 sub-exceptions)\n- KeyboardInterrupt\n- OSError: o\n"
            "  caused by ValueError: v",
        ),
    ],
    ids=lambda value: value.replace("\n", " ") if isinstance(value, str) else "",
)
def test_an_error_tells_its_real_cause(exception: BaseException, told: str) -> None:
    assert summary_of(exception) == told
    assert f"{type(exception).__name__}: {message_of(exception)}".rstrip(": ") == told


def test_circles_and_crowds_end() -> None:
    first, second = ValueError("1"), ValueError("2")
    wrap(first, wrap(second, first))
    assert summary_of(first) == "ValueError: 1\ncaused by ValueError: 2"

    crowd = ExceptionGroup("many", [ValueError(str(number)) for number in range(10_000)])
    assert "- [9,951 more left out]" in summary_of(crowd)

    deep: BaseException = ValueError("0")
    for number in range(500):
        deep = wrap(ValueError(str(number)), deep)
    assert summary_of(deep).count("caused by") == 10


def test_a_text_that_raises_or_never_ends() -> None:
    class Odd(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no")

    assert summary_of(Odd()) == "Odd: (its text cannot be had: RuntimeError)"
    huge = noted(wrap(ValueError("a" * 20_000_000 + "z"), OSError("the cause")), "the note")
    told = message_of(huge)
    assert len(told) < LONGEST_TEXT and told.startswith("aaa")
    assert "[19,991,809 characters left out] … a" in told and "az\nnote: the note\ncaused by OSError: the cause" in told


def test_what_is_cut_says_how_much() -> None:
    assert cut("x" * LONGEST_TEXT) == "x" * LONGEST_TEXT
    assert cut("abcdefg", 4) == "ab … [3 characters left out] … fg"
    assert cut("abcdefg", 3) == "ab … [4 characters left out] … g"


def refused() -> list[BaseException]:
    engine = create_engine("sqlite://")
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE geheim_table (x INTEGER PRIMARY KEY, y TEXT NOT NULL)"))

    def twice() -> None:
        with Session(engine) as session:
            for _ in range(2):
                session.execute(text("INSERT INTO geheim_table VALUES (1, :y)"), {"y": "geheim-value"})

    def wrong_value() -> None:
        with engine.connect() as connection:
            connection.execute(text("SELECT :geheim"), {"geheim": object()})

    def driver() -> None:
        sqlite3.connect(":memory:").execute("SELECT geheim FROM nowhere")

    def again() -> None:
        try:
            twice()
        except Exception as exc:
            raise RuntimeError("my import failed") from exc

    def quoted() -> None:
        try:
            twice()
        except Exception as exc:
            raise RuntimeError(f"my import failed: {exc}; sorry")  # noqa: B904  (the text is what counts)

    def noted_one() -> None:
        exc = raised(twice)
        raise noted(ValueError("mine"), str(exc))

    def grouped() -> None:
        raise BaseExceptionGroup("my group", [raised(twice), raised(driver)])

    pending = PendingRollbackError(f"rolled back due to a previous exception. Original exception was: {raised(twice)}")
    engine.dispose()
    return [pending, *(raised(call) for call in (twice, wrong_value, driver, again, quoted, noted_one, grouped))]


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_errors_of_a_database_show_no_statement_and_no_value() -> None:
    for exception in refused():
        told = summary_of(exception)
        assert "geheim" not in told and "INSERT" not in told and "SELECT" not in told, told
        assert "database" in told
    assert (
        summary_of(refused()[5])
        == "RuntimeError: my import failed: (a database error; its text is left out here); sorry"
    )


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_captured_records_of_database_errors_show_no_statement_and_no_value() -> None:
    for exception in refused():
        for arguments in (("failed: %s", (exception,)), (exception, ()), ("failed", ())):
            info = (type(exception), exception, exception.__traceback__)
            record = logging.LogRecord("x", logging.ERROR, __file__, 1, arguments[0], arguments[1], info)
            told = without_statements(_Formatter("%(message)s").format(record))
            assert "geheim" not in told.replace("raise RuntimeError", ""), told
