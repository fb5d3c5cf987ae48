"""`ProcessingTask.task_log`: whole, append-only, and nobody's lines lost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import event, func, select, text, update
from sqlalchemy.orm import Session
from sqlalchemy.orm.exc import DetachedInstanceError

from qhana_taskstate.database.engine import Database
from qhana_taskstate.database.sessions.scopes import Sessions
from qhana_taskstate.database.tables.log import log_table
from qhana_taskstate.database.tables.runner import task_table
from qhana_taskstate.models.task import ProcessingTask
from qhana_taskstate.store.log import entries
from qhana_taskstate.store.log import text as log_text

MakeSession = Callable[[], Session]


def as_stored(make_session: MakeSession, task_id: int) -> str:
    with make_session() as session:
        return session.get_one(ProcessingTask, task_id).task_log


def column_of(make_session: MakeSession, task_id: int) -> str:
    """What the runner reads."""
    with make_session() as session:
        query = select(task_table.c.task_log).where(task_table.c.id == task_id)
        return str(session.connection().execute(query).scalar_one())


def entries_of(make_session: MakeSession, task_id: int) -> list[str]:
    with make_session() as session:
        query = select(log_table.c.text).where(log_table.c.task_id == task_id).order_by(log_table.c.id)
        return list(session.connection().execute(query).scalars())


def write_column(session: Session, task: ProcessingTask, value: str) -> None:
    """Do what a plugin runner does, which knows no entries."""
    session.connection().execute(update(task_table).where(task_table.c.id == task.id).values(task_log=value))
    session.commit()


class TestReadAfter:
    def test_it_is_the_end_of_the_whole_log_at_every_offset(self, current: Session, task: ProcessingTask) -> None:
        task.task_log = ""
        for number in range(700):
            task.add_task_log_entry("ü" * (number % 7) + f"line {number}" + "\n" * (number % 3 == 0))
            task.task_log += "glued" * (number % 5 == 0)
        task.add_task_log_entry("one entry as long as a log\n" * 5000)
        task.add_task_log_entry("last", commit=True)
        connection = current.connection()
        whole = entries.read(connection, task.id)

        for after in (0, 1, 5_000, 9_000, len(whole) - 100_000, len(whole) - 5, len(whole) - 4, len(whole)):
            assert entries.read_after(connection, task.id, after) == (whole[after:], len(whole)), after
        assert entries.read_after(connection, task.id, len(whole) + 1) == (None, len(whole))

    @pytest.mark.parametrize("log", ["", "short", "ü\n"])
    def test_a_short_log_is_read_whole(self, current: Session, task: ProcessingTask, log: str) -> None:
        task.task_log = log
        current.commit()
        connection = current.connection()

        for after in range(len(log) + 1):
            assert entries.read_after(connection, task.id, after) == (log[after:], len(log))
        assert entries.read_after(connection, task.id, len(log) + 1) == (None, len(log))

    def test_only_what_follows_comes_over_the_wire(self, current: Session, task: ProcessingTask) -> None:
        task.task_log = "x" * 15_000 + "\n"
        for _ in range(9):
            task.add_task_log_entry("\n".join(["y" * 15_000] * 3))
        current.commit()
        connection = current.connection()
        whole = len(entries.read(connection, task.id))
        read: list[str] = []

        def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
            read.append(statement)

        event.listen(connection, "before_cursor_execute", note)
        text, characters = entries.read_after(connection, task.id, whole - 3)
        event.remove(connection, "before_cursor_execute", note)

        assert (text, characters) == ("yyy", whole)
        assert len(read) == 3
        assert "substr(" in read[-1] or "right(" in read[-1]


class TestAddTaskLogEntry:
    def test_entries_stand_below_each_other(
        self, current: Session, task: ProcessingTask, elsewhere: MakeSession
    ) -> None:
        task.add_task_log_entry("one")
        assert task.task_log == "one"
        task.add_task_log_entry("two\nlines")
        current.commit()
        task.add_task_log_entry("four")
        current.commit()

        assert task.task_log == "one\ntwo\nlines\nfour"
        assert as_stored(elsewhere, task.id) == "one\ntwo\nlines\nfour"
        assert column_of(elsewhere, task.id) == "one\ntwo\nlines\nfour"

    def test_commit_saves_a_new_task_too(self, current: Session, elsewhere: MakeSession) -> None:
        task = ProcessingTask("new")

        task.add_task_log_entry("one", commit=True)
        task.add_task_log_entry("two", True)

        assert as_stored(elsewhere, task.id) == "one\ntwo"

    def test_it_rolls_back_with_its_session(
        self, current: Session, task: ProcessingTask, elsewhere: MakeSession
    ) -> None:
        task.add_task_log_entry("kept", commit=True)
        task.add_task_log_entry("flushed")
        current.flush()
        task.add_task_log_entry("pending")
        current.rollback()

        assert task.task_log == "kept"
        assert as_stored(elsewhere, task.id) == column_of(elsewhere, task.id) == "kept"
        task.add_task_log_entry("later", commit=True)
        assert as_stored(elsewhere, task.id) == "kept\nlater"

    def test_a_savepoint_takes_only_its_own_entries_back(
        self, current: Session, task: ProcessingTask, elsewhere: MakeSession
    ) -> None:
        task.add_task_log_entry("outer")
        with current.begin_nested() as savepoint:
            task.add_task_log_entry("inner")
            savepoint.rollback()
        task.add_task_log_entry("later")
        current.commit()

        assert as_stored(elsewhere, task.id) == "outer\nlater"

    def test_the_log_of_a_task_whose_insert_was_rolled_back_is_inserted_again(
        self, current: Session, elsewhere: MakeSession
    ) -> None:
        task = ProcessingTask("new", task_log="one")
        task.add_task_log_entry("two")
        task.save()
        current.flush()
        current.rollback()

        task.save(commit=True)

        assert as_stored(elsewhere, task.id) == "one\ntwo"

    def test_it_is_only_written_at_the_flush(self, current: Session, task: ProcessingTask) -> None:
        current.rollback()

        task.add_task_log_entry("one")

        # On SQLite a plugin would otherwise keep everybody from writing until it commits.
        assert not current.connection().in_transaction() or task in current.dirty
        assert current.connection().execute(select(func.count()).select_from(log_table)).scalar() == 0

    @pytest.mark.parametrize("value", [None, 5, b"x"])
    def test_what_is_no_text_is_refused(self, task: ProcessingTask, value: Any) -> None:
        with pytest.raises(TypeError, match="a log is text, not"):
            task.add_task_log_entry(value)

    def test_what_no_text_column_holds_is_replaced(
        self, current: Session, task: ProcessingTask, elsewhere: MakeSession
    ) -> None:
        task.add_task_log_entry("a\0b\ud800c 𝄞")
        current.commit()

        assert as_stored(elsewhere, task.id) == "a\N{REPLACEMENT CHARACTER}b?c 𝄞"

    def test_an_entry_after_an_empty_one_starts_the_log(
        self, current: Session, task: ProcessingTask, elsewhere: MakeSession
    ) -> None:
        for line in ("", "one", "", "two"):
            task.add_task_log_entry(line)
            current.commit()

        assert as_stored(elsewhere, task.id) == column_of(elsewhere, task.id) == "one\n\ntwo"

    def test_two_writers_lose_no_line(
        self, current: Session, task: ProcessingTask, elsewhere: MakeSession, at_once: Callable[..., list[Any]]
    ) -> None:
        task_id = task.id
        sessions = {name: elsewhere() for name in ("a", "b")}

        def write(name: str) -> None:
            session = sessions[name]
            task = session.get_one(ProcessingTask, task_id)
            for number in range(20):
                if number % 2:
                    task.add_task_log_entry(f"{name}{number}", commit=True)
                else:
                    task.task_log += f"\n{name}{number}"
                    session.commit()

        errors = at_once(*(lambda name=name: write(name) for name in sessions))

        expected = sorted(f"{name}{number}" for name in "ab" for number in range(20))
        assert errors == [None, None]
        assert sorted(as_stored(elsewhere, task_id).split()) == expected
        assert sorted(column_of(elsewhere, task_id).split()) == expected

    def test_a_task_that_ended_still_takes_entries(
        self, current: Session, task: ProcessingTask, elsewhere: MakeSession
    ) -> None:
        task.task_status = "ERROR"
        current.commit()

        task.add_task_log_entry("afterwards", commit=True)

        assert as_stored(elsewhere, task.id) == "afterwards"


class TestTaskLog:
    def test_the_constructor_takes_a_log(self, current: Session, elsewhere: MakeSession) -> None:
        task = ProcessingTask("new", task_log="given")
        task.add_task_log_entry("more")
        assert task.task_log == "given\nmore"

        task.save(commit=True)
        task.add_task_log_entry("and more", commit=True)

        assert as_stored(elsewhere, task.id) == column_of(elsewhere, task.id) == "given\nmore\nand more"

    def test_assignment_replaces_the_log(self, current: Session, task: ProcessingTask, elsewhere: MakeSession) -> None:
        task.add_task_log_entry("old", commit=True)
        fresh = elsewhere()
        found = fresh.get_one(ProcessingTask, task.id)

        found.task_log = "new"
        assert found.task_log == "new"
        fresh.commit()

        assert as_stored(elsewhere, task.id) == column_of(elsewhere, task.id) == "new"
        assert entries_of(elsewhere, task.id) == ["new"]

    def test_the_log_can_be_emptied(self, current: Session, task: ProcessingTask, elsewhere: MakeSession) -> None:
        task.add_task_log_entry("old", commit=True)
        assert task.task_log

        task.task_log = ""
        current.commit()

        assert as_stored(elsewhere, task.id) == column_of(elsewhere, task.id) == ""

    def test_augmented_assignment_continues_the_last_line(
        self, current: Session, task: ProcessingTask, elsewhere: MakeSession
    ) -> None:
        task.task_log += "one"
        task.task_log += ", still one"
        current.commit()
        task.task_log += " and more\ntwo"
        current.commit()

        expected = "one, still one and more\ntwo"
        assert task.task_log == as_stored(elsewhere, task.id) == column_of(elsewhere, task.id) == expected

    def test_augmented_assignment_keeps_what_others_added(
        self, current: Session, task: ProcessingTask, elsewhere: MakeSession
    ) -> None:
        task.add_task_log_entry("start", commit=True)
        other = elsewhere()
        theirs = other.get_one(ProcessingTask, task.id)
        seen = task.task_log
        theirs.task_log += "\ntheirs"
        other.commit()

        task.task_log = seen + "\nmine"
        current.commit()

        assert as_stored(elsewhere, task.id) == "start\ntheirs\nmine"

    def test_it_reads_what_others_added_since(
        self, current: Session, task: ProcessingTask, elsewhere: MakeSession
    ) -> None:
        assert task.task_log == ""
        current.commit()
        other = elsewhere()
        other.get_one(ProcessingTask, task.id).add_task_log_entry("theirs", commit=True)

        assert task.task_log == "theirs"

    @pytest.mark.parametrize("flushed", [False, True])
    @pytest.mark.parametrize("before", ["", "x"])
    def test_what_was_rolled_back_is_assigned_again(
        self, current: Session, task: ProcessingTask, elsewhere: MakeSession, before: str, flushed: bool
    ) -> None:
        task.task_log = before
        current.commit()
        for _ in range(2):
            task.task_log = before + "a"
            if flushed:
                current.flush()
            current.rollback()
        task.task_log = before + "a"
        current.commit()
        task.task_log = before + "ab"
        current.commit()

        assert task.task_log == as_stored(elsewhere, task.id) == before + "ab"

    def test_what_a_savepoint_took_back_is_assigned_again(
        self, current: Session, task: ProcessingTask, elsewhere: MakeSession
    ) -> None:
        task.task_log = "kept"
        with current.begin_nested() as savepoint:
            task.task_log = "kept, gone"
            current.flush()
            savepoint.rollback()
        task.task_log = "kept, gone"
        current.commit()

        assert task.task_log == as_stored(elsewhere, task.id) == "kept, gone"

    def test_what_was_expired_is_assigned_again(
        self, current: Session, task: ProcessingTask, elsewhere: MakeSession
    ) -> None:
        task.task_log = "a"
        current.expire(task)
        task.task_log = "ab"
        current.commit()

        assert as_stored(elsewhere, task.id) == "ab"

    @pytest.mark.parametrize("step", ["pending", "flushed", "committed"])
    def test_assignment_replaces_what_the_same_object_added(
        self, current: Session, task: ProcessingTask, elsewhere: MakeSession, step: str
    ) -> None:
        task.add_task_log_entry("one")
        if step == "flushed":
            current.flush()
        elif step == "committed":
            current.commit()
        task.task_log = "two"
        current.commit()

        assert task.task_log == as_stored(elsewhere, task.id) == "two"

    def test_assignment_replaces_what_was_added_before_the_first_save(
        self, current: Session, elsewhere: MakeSession
    ) -> None:
        task = ProcessingTask("new")
        task.add_task_log_entry("one")
        task.task_log = "two"
        task.save(commit=True)

        assert as_stored(elsewhere, task.id) == "two"

    def test_expiring_gives_up_what_was_not_flushed(self, current: Session, task: ProcessingTask) -> None:
        task.add_task_log_entry("lost")
        current.expire(task)

        assert task.task_log == ""

    def test_a_detached_task_shows_what_it_showed_before(self, current: Session, task: ProcessingTask) -> None:
        task.add_task_log_entry("one", commit=True)
        assert task.task_log == "one"
        task.add_task_log_entry("two", commit=True)
        current.expunge(task)

        assert task.task_log == "one\ntwo"

    def test_a_detached_task_that_never_showed_its_log_cannot(
        self, task: ProcessingTask, elsewhere: MakeSession
    ) -> None:
        session = elsewhere()
        found = session.get_one(ProcessingTask, task.id)
        session.expunge(found)

        with pytest.raises(DetachedInstanceError):
            _ = found.task_log


class TestColumn:
    def test_it_holds_the_newest_lines_that_fit(
        self, database: Database, install_sessions: Callable[..., Sessions], elsewhere: MakeSession
    ) -> None:
        with install_sessions(database, log_column_bytes=100).scope() as session:
            task = ProcessingTask("new", task_log="x" * 90)
            task.save(commit=True)
            lines = [f"line {number} ä𝄞" for number in range(40)]
            for line in lines:
                task.add_task_log_entry(line)
                if len(line) % 2:
                    session.commit()
            session.commit()

            whole = "\n".join(["x" * 90, *lines])
            column = column_of(elsewhere, task.id)
            assert task.task_log == whole
            assert whole.endswith("\n" + column)
            assert 80 < len(column.encode()) <= 100

    def test_a_line_longer_than_the_column_is_cut_between_characters(
        self, database: Database, install_sessions: Callable[..., Sessions], elsewhere: MakeSession
    ) -> None:
        with install_sessions(database, log_column_bytes=50).scope():
            task = ProcessingTask("new", task_log="𝄞" * 30)
            task.save(commit=True)
            task.add_task_log_entry("ä" * 101, commit=True)

            assert column_of(elsewhere, task.id) == "ä" * 25
            assert task.task_log == "𝄞" * 30 + "\n" + "ä" * 101

    def test_a_long_log_comes_back_whole(self, current: Session, task: ProcessingTask, elsewhere: MakeSession) -> None:
        lines = [f"{number}: {'ä' * 200}" for number in range(1000)]
        for line in lines:
            task.add_task_log_entry(line)
        current.commit()

        assert as_stored(elsewhere, task.id) == "\n".join(lines)
        column = column_of(elsewhere, task.id)
        assert 59 * 1024 < len(column.encode()) <= 60 * 1024
        assert "\n".join(lines).endswith("\n" + column)


class TestOldRows:
    def test_text_without_entries_is_the_log(self, current: Session, task: ProcessingTask) -> None:
        write_column(current, task, "old\ntext")

        assert task.task_log == "old\ntext"

    def test_it_is_kept_when_the_first_entry_is_added(
        self, current: Session, task: ProcessingTask, elsewhere: MakeSession
    ) -> None:
        write_column(current, task, "old\ntext")

        task.add_task_log_entry("new", commit=True)

        assert task.task_log == column_of(elsewhere, task.id) == "old\ntext\nnew"
        assert entries_of(elsewhere, task.id) == ["old\ntext", "new"]

    def test_two_at_once_take_it_over_once(
        self, current: Session, elsewhere: MakeSession, at_once: Callable[..., list[Any]]
    ) -> None:
        for _ in range(5):
            task = ProcessingTask("old")
            task.save(commit=True)
            task_id = task.id
            write_column(current, task, "old")
            sessions = [elsewhere() for _ in range(3)]

            def add(session: Session, number: int, task_id: int = task_id) -> None:
                session.get_one(ProcessingTask, task_id).add_task_log_entry(f"new {number}", commit=True)

            errors = at_once(*(lambda pair=pair: add(pair[1], pair[0]) for pair in enumerate(sessions)))

            assert errors == [None] * 3
            lines = as_stored(elsewhere, task_id).split("\n")
            assert lines[0] == "old"
            assert sorted(lines[1:]) == ["new 0", "new 1", "new 2"]

    def test_what_a_runner_appends_to_the_column_is_shown(
        self, current: Session, task: ProcessingTask, elsewhere: MakeSession
    ) -> None:
        task.add_task_log_entry("ours", commit=True)
        write_column(current, task, "ours\ntheirs")
        assert task.task_log == "ours\ntheirs"

        task.add_task_log_entry("ours again", commit=True)

        assert task.task_log == column_of(elsewhere, task.id) == "ours\ntheirs\nours again"

    def test_what_a_runner_appended_becomes_an_entry_when_the_column_is_made_anew(
        self, current: Session, task: ProcessingTask, elsewhere: MakeSession
    ) -> None:
        task.add_task_log_entry("ours", commit=True)
        write_column(current, task, "ours\ntheirs")

        entries.refresh_column(current.connection(), task.id)
        current.commit()

        assert entries_of(elsewhere, task.id) == ["ours", "theirs"]
        assert task.task_log == column_of(elsewhere, task.id) == "ours\ntheirs"


class TestForTheTracker:
    """The functions that the recorder calls in transactions of its own."""

    def test_append_without_column_waits_for_nobody(
        self, current: Session, task: ProcessingTask, elsewhere: MakeSession
    ) -> None:
        task.add_task_log_entry("one", commit=True)
        with elsewhere() as session:
            entries.append(session.connection(), task.id, ["two", "three"], column=False)
            session.commit()

        assert column_of(elsewhere, task.id) == "one"
        assert task.task_log == "one\ntwo\nthree"

        with elsewhere() as session:
            entries.refresh_column(session.connection(), task.id)
            session.commit()
        assert column_of(elsewhere, task.id) == "one\ntwo\nthree"

    @pytest.mark.databases("postgresql")
    def test_append_without_column_goes_past_a_locked_row(
        self, current: Session, task: ProcessingTask, elsewhere: MakeSession
    ) -> None:
        task.parameters = "held"
        current.flush()

        with elsewhere() as session:
            session.connection().execute(text("SET LOCAL lock_timeout = 100"))
            entries.append(session.connection(), task.id, ["from the recorder"], column=False)
            session.commit()
        current.commit()

        assert task.task_log == "from the recorder"

    def test_a_column_that_lags_hides_no_entry(
        self, current: Session, task: ProcessingTask, elsewhere: MakeSession
    ) -> None:
        task.add_task_log_entry("one", commit=True)
        with elsewhere() as session:
            entries.append(session.connection(), task.id, ["two"], column=False)
            session.commit()

        task.add_task_log_entry("three", commit=True)

        assert task.task_log == "one\ntwo\nthree"

    def test_append_without_column_takes_old_text_over(
        self, current: Session, task: ProcessingTask, elsewhere: MakeSession
    ) -> None:
        write_column(current, task, "old")
        with elsewhere() as session:
            entries.append(session.connection(), task.id, ["new"], column=False)
            session.commit()

        assert task.task_log == "old\nnew"

    def test_read_of_a_task_that_is_not_there_is_empty(self, current: Session) -> None:
        assert entries.read(current.connection(), 77) == ""

    def test_no_entries_write_nothing(self, current: Session, task: ProcessingTask) -> None:
        entries.append(current.connection(), task.id, [])

        assert task.task_log == ""


@pytest.mark.parametrize(
    ("whole", "limit", "expected"),
    [
        ("short", 10, "short"),
        ("one\ntwo\nthree", 9, "two\nthree"),
        ("one\ntwo\nthree", 8, "three"),
        ("one\ntwo\nthree", 5, "three"),
        ("äöü", 5, "öü"),
        ("xyz\n", 3, "yz\n"),
    ],
)
def test_the_newest_part_begins_at_a_line_if_one_is_near(whole: str, limit: int, expected: str) -> None:
    assert log_text.tail(whole, limit) == expected
