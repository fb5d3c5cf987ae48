"""`ProcessingTask.data`: any JSON value, every change noticed, nobody's keys lost."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select, text
from sqlalchemy.orm import Session

from qhana_taskstate.database.engine import Database
from qhana_taskstate.database.sessions.scopes import Sessions
from qhana_taskstate.errors import TaskStateError
from qhana_taskstate.json.merge import is_same, to_plain
from qhana_taskstate.models.task import ProcessingTask

MakeSession = Callable[[], Session]


def as_stored(make_session: MakeSession, task_id: int) -> Any:
    """What a fresh session reads."""
    with make_session() as session:
        return to_plain(session.get_one(ProcessingTask, task_id).data)


def set_raw(session: Session, task: ProcessingTask, value: str) -> None:
    """Write into the column what another program wrote."""
    quoted = session.connection().dialect.identifier_preparer.quote("ProcessingTask")
    session.execute(text(f"UPDATE {quoted} SET data = {value}"))  # noqa: S608
    session.commit()
    session.expire(task)


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        False,
        0,
        5,
        2**80,
        1.0,
        -0.0,
        1e300,
        0.1,
        "",
        "12",
        "null",
        "a\0b\nä𝄞",
        [],
        {},
        [None, [1.0, {"k": []}]],
        {"": {"a": None}},
    ],
    ids=repr,
)
def test_any_json_value_comes_back_as_it_was(
    current: Session, task: ProcessingTask, elsewhere: MakeSession, value: Any
) -> None:
    task.data = value
    current.commit()

    assert is_same(as_stored(elsewhere, task.id), value)

    made = ProcessingTask("made with it", data=value)
    made.save(commit=True)
    assert is_same(as_stored(elsewhere, made.id), value)


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ({"rows": [1, float("nan")]}, r'data\["rows"\]\[1\]'),
        ({"s": {1}}, r'data\["s"\]'),
        ([datetime.now(UTC)], r"data\[0\]"),
        ({1: 2}, "data"),
        (object(), "data"),
    ],
)
def test_what_json_cannot_hold_is_refused_where_it_is_assigned(task: ProcessingTask, value: Any, path: str) -> None:
    with pytest.raises(ValueError, match=path):
        task.data = value
    with pytest.raises(ValueError, match="data"):
        ProcessingTask("new", data=value)
    assert task.data == {}


def test_assigned_containers_are_copied(current: Session, task: ProcessingTask, elsewhere: MakeSession) -> None:
    mine: dict[str, Any] = {"rows": [1]}
    task.data = mine
    mine["rows"].append(2)
    task.data["more"] = mine
    mine["x"] = 1
    current.commit()

    assert as_stored(elsewhere, task.id) == {"rows": [1], "more": {"rows": [1, 2]}}


CHANGES: dict[str, Callable[[Any], object]] = {
    "set": lambda data: data.__setitem__("new", 1),
    "delete": lambda data: data.__delitem__("name"),
    "update": lambda data: data.update(a=1),
    "or": lambda data: data.__ior__({"a": 1}),
    "pop": lambda data: data.pop("name"),
    "popitem": lambda data: data.popitem(),
    "clear": lambda data: data.clear(),
    "setdefault": lambda data: data.setdefault("joins", []).append({"a": 1}),
    "append": lambda data: data["rows"].append(4),
    "insert": lambda data: data["rows"].insert(0, 4),
    "reverse": lambda data: data["rows"].reverse(),
    "sort": lambda data: data["rows"].sort(),
    "pop item": lambda data: data["rows"].pop(),
    "remove": lambda data: data["rows"].remove(3),
    "extend alias": lambda data: _extend(data["rows"]),
    "slice": lambda data: data["rows"].__setitem__(slice(0, 2), []),
    "deep": lambda data: data["deep"]["er"][0].update(x=2),
}


def _extend(rows: list[Any]) -> None:
    rows += [5, 6]


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_every_change_in_place_is_saved(
    current: Session, task: ProcessingTask, elsewhere: MakeSession, change: Callable[[Any], object]
) -> None:
    start: dict[str, Any] = {"rows": [3, 1, 2], "deep": {"er": [{"x": 1}]}, "name": "n"}
    task.data = start
    current.commit()
    expected = copy.deepcopy(start)
    change(expected)

    change(task.data)
    current.commit()

    assert as_stored(elsewhere, task.id) == expected
    assert task.data == expected


def test_changes_through_references_taken_before_a_commit_are_saved(
    current: Session, task: ProcessingTask, elsewhere: MakeSession
) -> None:
    task.data = {"rows": [{"x": 1}]}
    row = task.data["rows"][0]
    current.commit()
    row["x"] = 2
    current.commit()
    current.expire(task)
    row["x"] = 3
    current.commit()
    assert ProcessingTask.get_by_id(task.id) is task
    row["x"] += 1
    current.commit()

    assert as_stored(elsewhere, task.id) == {"rows": [{"x": 4}]}
    assert task.data["rows"][0] is row


def test_a_reference_keeps_the_task_that_it_belongs_to(
    current: Session, task: ProcessingTask, elsewhere: MakeSession
) -> None:
    task.data = {"rows": []}
    task_id = task.id
    current.commit()
    current.expunge_all()

    rows = current.get_one(ProcessingTask, task_id).data["rows"]
    rows.append(1)
    current.commit()

    assert as_stored(elsewhere, task_id) == {"rows": [1]}


def test_a_reference_to_what_was_replaced_changes_nothing(
    current: Session, task: ProcessingTask, elsewhere: MakeSession
) -> None:
    task.data = {"a": {"x": 1}}
    old, inner = task.data, task.data["a"]
    task.data = {"b": 1}
    old["x"] = inner["x"] = 2
    current.commit()

    assert as_stored(elsewhere, task.id) == {"b": 1}


def test_augmented_assignment_of_the_whole_value_is_saved(
    current: Session, task: ProcessingTask, elsewhere: MakeSession
) -> None:
    task.data = [1]
    current.commit()
    alias = task.data

    task.data += [2]
    alias.append(3)
    current.commit()

    assert as_stored(elsewhere, task.id) == [1, 2, 3]


def test_unchanged_data_is_not_written(current: Session, task: ProcessingTask, elsewhere: MakeSession) -> None:
    task.data = {"k": 1}
    current.commit()
    other = elsewhere()
    other.get_one(ProcessingTask, task.id).data["k"] = 2
    other.commit()

    task.data["k"] = 5
    task.data["k"] = 1
    task.parameters = "changed"
    current.commit()

    assert as_stored(elsewhere, task.id) == {"k": 2}


class TestTwoProcesses:
    @pytest.fixture
    def both(
        self, current: Session, task: ProcessingTask, elsewhere: MakeSession
    ) -> tuple[ProcessingTask, ProcessingTask, Session]:
        """The same task in two sessions, both loaded."""
        task.data = {"a": 1, "deep": {"x": 1, "y": {"z": 1}}, "rows": [1]}
        current.commit()
        other = elsewhere()
        theirs = other.get_one(ProcessingTask, task.id)
        assert theirs.data["a"] == 1
        other.commit()
        return task, theirs, other

    def test_different_keys_at_any_depth_are_both_kept(
        self, current: Session, both: Any, elsewhere: MakeSession
    ) -> None:
        mine, theirs, other = both
        mine.data["mine"] = 1
        mine.data["deep"]["y"]["mine"] = 1
        del mine.data["deep"]["x"]
        theirs.data["theirs"] = 2
        theirs.data["deep"]["y"]["theirs"] = 2
        del theirs.data["a"]
        other.commit()
        current.commit()

        expected = {
            "deep": {"y": {"z": 1, "mine": 1, "theirs": 2}},
            "rows": [1],
            "mine": 1,
            "theirs": 2,
        }
        assert as_stored(elsewhere, mine.id) == expected
        assert mine.data == expected

    def test_the_same_key_has_the_value_of_the_later_commit(
        self, current: Session, both: Any, elsewhere: MakeSession
    ) -> None:
        mine, theirs, other = both
        mine.data["a"] = "mine"
        theirs.data["a"] = "theirs"
        other.commit()
        current.commit()

        assert as_stored(elsewhere, mine.id)["a"] == "mine"

    def test_a_list_is_one_value(self, current: Session, both: Any, elsewhere: MakeSession) -> None:
        mine, theirs, other = both
        mine.data["rows"].append("mine")
        theirs.data["rows"].append("theirs")
        other.commit()
        current.commit()

        assert as_stored(elsewhere, mine.id)["rows"] == [1, "mine"]

    def test_a_whole_new_value_counts_as_its_difference(
        self, current: Session, both: Any, elsewhere: MakeSession
    ) -> None:
        mine, theirs, other = both
        mine.data = {**mine.data, "mine": 1}
        theirs.data["theirs"] = 2
        other.commit()
        current.commit()

        stored = as_stored(elsewhere, mine.id)
        assert (stored["mine"], stored["theirs"]) == (1, 2)

    def test_references_show_what_was_merged(self, current: Session, both: Any) -> None:
        mine, theirs, other = both
        data, deep = mine.data, mine.data["deep"]
        mine.data["mine"] = 1
        theirs.data["deep"]["theirs"] = 2
        other.commit()
        current.commit()

        assert mine.data is data
        assert data["deep"] is deep
        assert deep["theirs"] == 2
        deep["more"] = 3
        current.commit()
        current.refresh(mine)
        assert mine.data["deep"]["more"] == 3

    def test_a_second_flush_of_the_same_transaction_keeps_their_changes(
        self, current: Session, both: Any, elsewhere: MakeSession
    ) -> None:
        mine, theirs, other = both
        theirs.data["theirs"] = 2
        other.commit()
        mine.data["one"] = 1
        current.flush()
        mine.data["two"] = 2
        current.commit()

        stored = as_stored(elsewhere, mine.id)
        assert (stored["theirs"], stored["one"], stored["two"]) == (2, 1, 2)

    def test_a_change_in_what_somebody_else_removed_is_refused_once_that_is_known(
        self, current: Session, both: Any
    ) -> None:
        mine, theirs, other = both
        deep = mine.data["deep"]
        theirs.data = {"new": 1}
        other.commit()
        current.expire(mine)

        with pytest.raises(TaskStateError, match="no longer part of the task's data"):
            deep["x"] = 2

    def test_threads_that_count_different_keys_lose_nothing(
        self, current: Session, task: ProcessingTask, elsewhere: MakeSession, at_once: Callable[..., list[Any]]
    ) -> None:
        task_id = task.id
        sessions = {key: elsewhere() for key in ("a", "b", "c")}

        def count(key: str) -> None:
            session = sessions[key]
            task = session.get_one(ProcessingTask, task_id)
            for _ in range(15):
                task.data[key] = task.data.get(key, 0) + 1
                session.commit()

        errors = at_once(*(lambda key=key: count(key) for key in sessions))

        assert errors == [None, None, None]
        assert as_stored(elsewhere, task_id) == {"a": 15, "b": 15, "c": 15}

    @pytest.mark.servers
    def test_processes_that_count_different_keys_lose_nothing(
        self, current: Session, task: ProcessingTask, elsewhere: MakeSession, taskstate_database_url: str
    ) -> None:
        script = Path(__file__).with_name("count_in_data.py")
        processes = [
            subprocess.Popen(
                [sys.executable, str(script), taskstate_database_url, str(task.id), key, "25"],
                cwd=Path(__file__).parents[3],
            )
            for key in ("a", "b")
        ]
        codes = [process.wait(timeout=60) for process in processes]

        assert codes == [0, 0]
        assert as_stored(elsewhere, task.id) == {"deep": {"a": 25, "b": 25}}

    def test_a_task_that_was_detached_meanwhile_keeps_their_changes(
        self, current: Session, both: Any, elsewhere: MakeSession
    ) -> None:
        mine, theirs, other = both
        current.expunge(mine)
        mine.data["mine"] = 1
        mine.add_task_log_entry("mine")
        theirs.data["theirs"] = 2
        other.commit()

        mine.save(commit=True)

        stored = as_stored(elsewhere, mine.id)
        assert (stored["mine"], stored["theirs"]) == (1, 2)
        assert mine.task_log == "mine"


class TestRollback:
    def test_the_tree_shows_the_database_again(self, current: Session, task: ProcessingTask) -> None:
        task.data = {"rows": [1]}
        current.commit()
        data, rows = task.data, task.data["rows"]

        rows.append(2)
        data["x"] = 1
        current.flush()
        rows.append(3)
        current.rollback()

        assert data == {"rows": [1]}
        assert rows == [1]
        assert task.data is data

    def test_changes_after_a_rollback_are_saved(
        self, current: Session, task: ProcessingTask, elsewhere: MakeSession
    ) -> None:
        rows = task.data.setdefault("rows", [])
        current.commit()
        rows.append(1)
        current.rollback()
        rows.append(2)
        current.commit()

        assert as_stored(elsewhere, task.id) == {"rows": [2]}

    def test_a_savepoint_takes_only_its_own_changes_back(
        self, current: Session, task: ProcessingTask, elsewhere: MakeSession
    ) -> None:
        task.data["outer"] = 1
        with current.begin_nested() as savepoint:
            task.data["inner"] = 1
            current.flush()
            savepoint.rollback()
        assert task.data == {"outer": 1}
        task.data["later"] = 1
        current.commit()

        assert as_stored(elsewhere, task.id) == {"outer": 1, "later": 1}

    def test_an_object_that_was_never_inserted_keeps_its_data(self, current: Session, elsewhere: MakeSession) -> None:
        task = ProcessingTask("new", data={"a": 1})
        task.save()
        current.flush()
        task.data["b"] = 2
        current.rollback()

        task.save(commit=True)

        assert as_stored(elsewhere, task.id) == {"a": 1, "b": 2}


class TestReading:
    def test_sql_null_reads_as_an_empty_dict_and_can_be_changed(
        self, current: Session, task: ProcessingTask, elsewhere: MakeSession
    ) -> None:
        set_raw(current, task, "NULL")
        assert task.data == {}

        task.data["k"] = 1
        current.commit()

        assert as_stored(elsewhere, task.id) == {"k": 1}

    def test_json_null_reads_as_none(self, current: Session, task: ProcessingTask) -> None:
        set_raw(current, task, "'null'")

        assert task.data is None

    @pytest.mark.databases("sqlite")
    def test_nan_of_an_old_row_reads_as_none(
        self, current: Session, task: ProcessingTask, elsewhere: MakeSession
    ) -> None:
        set_raw(current, task, """'{"x": [NaN, -Infinity, 1]}'""")
        assert task.data == {"x": [None, None, 1]}

        task.data["k"] = 1
        current.commit()

        assert as_stored(elsewhere, task.id) == {"x": [None, None, 1], "k": 1}

    @pytest.mark.databases("sqlite")
    def test_a_number_of_an_old_row_is_read(self, current: Session, task: ProcessingTask) -> None:
        set_raw(current, task, "5")

        assert task.data == 5

    def test_it_can_be_selected_alone(self, current: Session, task: ProcessingTask) -> None:
        task.data["k"] = 1
        current.commit()

        assert current.execute(select(ProcessingTask.data)).scalar_one() == {"k": 1}

    def test_others_find_json(self, current: Session, task: ProcessingTask) -> None:
        task.data = {"k": ["ä", 1.5]}
        current.commit()
        quoted = current.connection().dialect.identifier_preparer.quote("ProcessingTask")

        raw = current.connection().exec_driver_sql(f"SELECT data FROM {quoted}").scalar_one()  # noqa: S608

        assert (json.loads(raw) if isinstance(raw, str) else raw) == {"k": ["ä", 1.5]}


scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
values = st.recursive(
    scalars | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)


def containers(root: Any) -> list[Any]:
    """All containers of a value, outermost first."""
    if isinstance(root, dict):
        return [root, *(found for item in root.values() for found in containers(item))]
    if isinstance(root, list):
        return [root, *(found for item in root for found in containers(item))]
    return []


def change_somewhere(draw: Callable[[Any], Any], tracked: Any, model: Any) -> None:
    """Do the same to a container of the tracked value and to its counterpart in the model."""
    count = len(containers(model))
    index = draw(st.integers(0, count - 1))
    pair = (containers(tracked)[index], containers(model)[index])
    value = draw(values)
    if isinstance(pair[1], dict):
        key = draw(st.sampled_from(sorted(pair[1])) | texts if pair[1] else texts)
        name = draw(st.sampled_from(["set", "pop", "setdefault", "update", "clear"]))
        for each in pair:
            match name:
                case "set":
                    each[key] = copy.deepcopy(value)
                case "pop":
                    each.pop(key, None)
                case "setdefault":
                    each.setdefault(key, copy.deepcopy(value))
                case "update":
                    each.update({key: copy.deepcopy(value), "other": 1})
                case "clear":
                    each.clear()
        return
    name = draw(st.sampled_from(["append", "insert", "pop", "reverse", "slice", "extend", "clear"]))
    place = draw(st.integers(-3, 3))
    for each in pair:
        match name:
            case "append":
                each.append(copy.deepcopy(value))
            case "insert":
                each.insert(place, copy.deepcopy(value))
            case "pop" if each:
                each.pop()
            case "reverse":
                each.reverse()
            case "slice":
                each[place : place + 2] = [copy.deepcopy(value)]
            case "extend":
                each += [copy.deepcopy(value), 1]
            case "clear":
                each.clear()


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_fresh_session_reads_the_same_after_any_changes(
    database: Database, install_sessions: Callable[..., Sessions], data: st.DataObject
) -> None:
    draw = data.draw
    found = install_sessions(database)
    with found.scope() as session:
        model: Any = draw(values)
        task = ProcessingTask("property", data=model)
        task.save(commit=True)
        for _ in range(draw(st.integers(1, 8))):
            match draw(st.sampled_from(["change", "change", "change", "assign", "commit", "flush", "expire", "again"])):
                case "change" if containers(model):
                    change_somewhere(draw, task.data, model)
                case "assign":
                    model = draw(values)
                    task.data = model
                    model = copy.deepcopy(model)
                case "commit":
                    session.commit()
                case "flush":
                    session.flush()
                case "expire":
                    session.flush()
                    session.expire(task)
                case "again":
                    assert ProcessingTask.get_by_id(task.id) is task
            assert is_same(to_plain(task.data), model)
        session.commit()
        assert is_same(as_stored(found.new_session, task.id), model)
