"""One rule for every text of every model on every database: NUL and lone surrogates are replaced or refused."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import product
from typing import Any

import pytest
from sqlalchemy import Enum, String, insert, inspect, select, update
from sqlalchemy.orm import Session

from qhana_taskstate import TextCharacterError
from qhana_taskstate.database.tables.base import metadata
from qhana_taskstate.database.tables.columns import NullAs, StatusWord
from qhana_taskstate.database.tables.types import FollowedText, ReadText
from qhana_taskstate.models.base import Base
from qhana_taskstate.models.file import TaskFile
from qhana_taskstate.models.link import TaskLink
from qhana_taskstate.models.step import Step
from qhana_taskstate.models.subscription import TaskUpdateSubscription
from qhana_taskstate.models.task import ProcessingTask

MakeSession = Callable[[], Session]

#: What a text may hold, and what is stored of it where people read it.
BAD = {"a\0b": "a\N{REPLACEMENT CHARACTER}b", "\ud800": "?", "x\udfff𝄞": "x?𝄞", "\0\0": "\N{REPLACEMENT CHARACTER}" * 2}

READ: dict[type[Any], list[str]] = {
    ProcessingTask: ["task_name", "parameters", "progress_unit"],
    TaskFile: ["file_name"],
}
FOLLOWED: dict[type[Any], list[str]] = {
    Step: ["step_id", "href", "ui_href"],
    TaskFile: ["security_tag", "storage_provider", "file_storage_data", "file_type", "mimetype"],
    TaskLink: ["type", "href"],
    TaskUpdateSubscription: ["webhook_href", "task_href", "event_type"],
}

GIVEN: dict[type[Any], dict[str, Any]] = {
    ProcessingTask: {"task_name": "n"},
    Step: {"step_id": "s", "href": "http://h", "ui_href": "http://u"},
    TaskFile: {
        "security_tag": "t",
        "storage_provider": "p",
        "file_name": "f",
        "file_storage_data": "/d",
        "file_type": "entity/label",
        "mimetype": "text/csv",
    },
    TaskLink: {"type": "t", "href": "http://h"},
    TaskUpdateSubscription: {"webhook_href": "http://w", "task_href": "http://t", "event_type": "status"},
}


def made(cls: type[Any], task: ProcessingTask, **changed: Any) -> Any:
    """Make an object by its constructor."""
    given = {**GIVEN[cls], **changed}
    if cls is ProcessingTask:
        return ProcessingTask(**given)
    return Step(id=task.id, **given) if cls is Step else cls(task, **given)


def row_of(cls: type[Any], task: ProcessingTask, **changed: Any) -> dict[str, Any]:
    """Return the values of an INSERT."""
    given = {**GIVEN[cls], **changed}
    if cls is ProcessingTask:
        return {**given, "_log_column": "", "data": {}}
    return {**given, "id": task.id, "number": 0} if cls is Step else {**given, "task_id": task.id}


def test_every_text_column_has_a_rule() -> None:
    texts = {(cls, name) for rule in (READ, FOLLOWED) for cls, names in rule.items() for name in names}
    for mapper in Base.registry.mappers:
        for attribute in mapper.column_attrs:
            column_type = attribute.columns[0].type
            inner = column_type.inner if isinstance(column_type, NullAs) else column_type
            if isinstance(inner, (ReadText, FollowedText)) and attribute.key != "task_log":
                assert (mapper.class_, attribute.key) in texts
            else:
                # A status is one of a few words.
                assert attribute.key == "task_log" or isinstance(inner, StatusWord) or not isinstance(inner, String)
    ours = [column for name, table in metadata.tables.items() if name.startswith("taskstate_") for column in table.c]
    from_outside = {"celery_id", "name", "parent_id", "queue", "worker", "host", "error", "error_type", "traceback"}
    for column in ours:
        if column.name in from_outside and column.table.name != "taskstate_upkeep":
            assert isinstance(column.type, ReadText), column
        assert not isinstance(column.type, Enum)


@pytest.mark.parametrize("cls", READ)
def test_what_people_read_is_cleaned(
    current: Session, task: ProcessingTask, elsewhere: MakeSession, cls: type[Any]
) -> None:
    other = elsewhere()
    for name, (bad, stored) in product(READ[cls], BAD.items()):
        objects = [made(cls, task, **{name: bad}), *(made(cls, task) for _ in range(3))]
        by_constructor, by_attribute, by_update, by_rows = objects
        setattr(by_attribute, name, bad)
        # What is read before the flush is what is read after it.
        assert (getattr(by_constructor, name), getattr(by_attribute, name)) == (stored, stored)
        current.add_all(objects)
        current.flush()
        current.execute(update(cls).where(cls.id == by_update.id).values(**{name: bad}))
        current.execute(update(cls), [{"id": by_rows.id, name: bad}])
        current.execute(insert(cls), [row_of(cls, task, **{name: bad})])
        current.execute(insert(cls).values(**row_of(cls, task, **{name: bad})))
        current.commit()

        column = getattr(cls, name)
        mine = select(column).where(cls.id >= by_constructor.id)
        assert other.scalars(mine).all() == other.scalars(mine.where(column == bad)).all() == [stored] * 6
        other.rollback()


@pytest.mark.parametrize("cls", FOLLOWED)
def test_what_machines_follow_is_refused(current: Session, task: ProcessingTask, cls: type[Any]) -> None:
    good = made(cls, task)
    if cls is Step:
        good.number = 7
    current.add(good)
    current.commit()
    key = {column.name: getattr(good, column.name) for column in inspect(cls).primary_key}
    for name, bad in product(FOLLOWED[cls], BAD):
        value = {name: bad}
        ways: list[Callable[[], object]] = [
            partial(made, cls, task, **value),
            partial(setattr, good, name, bad),
            partial(current.execute, insert(cls), [row_of(cls, task, **value)]),
            partial(current.execute, insert(cls).values(**row_of(cls, task, **value))),
            partial(current.execute, update(cls).where(cls.id == good.id).values(**value)),
            partial(current.execute, update(cls), [{**key, **value}]),
        ]
        for way in ways:
            refused = pytest.raises(TextCharacterError, match=rf"{cls.__name__}.{name} holds U\+")
            with current.no_autoflush, refused as seen:
                way()
            assert isinstance(seen.value, ValueError)
            assert "INSERT" not in str(seen.value) and "UPDATE" not in str(seen.value)
            current.rollback()

        # A question about such a text is answered: there is none.
        column = getattr(cls, name)
        assert current.scalars(select(column).where(column == bad)).all() == []
        assert current.scalars(select(column).where(column.in_([bad, GIVEN[cls][name]]))).all() == [GIVEN[cls][name]]


def test_nobody_is_subscribed_with_an_address_that_no_column_holds(current: Session, task: ProcessingTask) -> None:
    for bad in BAD:
        assert TaskUpdateSubscription.get_by_task_and_subscriber(task, bad) == []
        assert TaskUpdateSubscription.get_by_task_and_event(task, bad) == []


@pytest.mark.parametrize("text", ["a\0b", "\0"], ids=ascii)
def test_data_holds_nul_on_every_database(
    current: Session, task: ProcessingTask, elsewhere: MakeSession, text: str
) -> None:
    task.data = {text: [text, {"x": text}]}
    current.commit()

    found = elsewhere().get(ProcessingTask, task.id)
    assert found is not None and found.data == {text: [text, {"x": text}]}


@pytest.mark.parametrize("way", ["task_log", "+=", "entry", "insert"])
def test_the_log_is_cleaned_in_every_way(
    current: Session, task: ProcessingTask, elsewhere: MakeSession, way: str
) -> None:
    if way == "task_log":
        task.task_log = "a\0\ud800"
    elif way == "+=":
        task.task_log += "a\0\ud800"
    elif way == "entry":
        task.add_task_log_entry("a\0\ud800")
    else:
        current.execute(update(ProcessingTask).where(ProcessingTask.id == task.id).values(_log_column="a\0\ud800"))
    current.commit()

    found = elsewhere().get(ProcessingTask, task.id)
    assert found is not None and found.task_log == "a\N{REPLACEMENT CHARACTER}?"
