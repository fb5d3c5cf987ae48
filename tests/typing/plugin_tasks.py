"""Calls of plugin tasks."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, assert_type

from celery import Signature, Task, chain, chord, group
from celery.result import AsyncResult

from qhana_taskstate import ProcessingTask, plugin_task, taskstate


@plugin_task
def bare(k: int, *, unit: str = "rows") -> str:
    """Without brackets."""
    return unit * k


@plugin_task(name="typing.named", max_retries=3)
def named(k: int, *, unit: str = "rows") -> str:
    """With brackets."""
    return unit * k


@plugin_task()
def empty(k: int, *, unit: str = "rows") -> str:
    """With brackets that hold nothing."""
    return unit * k


@plugin_task(bind=True)
def bound(self: Task[Any, Any], k: int, *, unit: str = "rows") -> str:
    """With its own task as the first argument."""
    return unit * k


@plugin_task
async def coroutine(k: int) -> str:
    """As a coroutine function."""
    return str(k)


@plugin_task
def merge(parts: list[str], separator: str = ",") -> str:
    """Take the results of others."""
    return separator.join(parts)


def right() -> None:
    """Use them as they are meant."""
    assert_type(bare(3, unit="x"), str)
    assert_type(bare.start(3, unit="x"), ProcessingTask)
    assert_type(bare.start_on_commit(3), ProcessingTask | None)
    assert_type(bare.delay(k=3), AsyncResult[str])
    assert_type(bare.s(3), Signature[str])
    assert_type(bare.si(3), Signature[str])
    assert_type(named(3, unit="x"), str)
    assert_type(named.start(3, unit="x"), ProcessingTask)
    assert_type(empty.start(3), ProcessingTask)
    assert_type(bound(3), str)
    assert_type(bound.start(k=3), ProcessingTask)
    _ = assert_type(coroutine(3), Coroutine[Any, Any, str])
    assert_type(coroutine.start(3), ProcessingTask)
    assert_type(named.name, str)
    named.apply_async([3], {"unit": "x"}, countdown=3)
    taskstate.start(chord(group(bare.s(k) for k in range(3)), merge.s()), task_name="report", finishes=True)
    # What runs before it gives the first argument.
    taskstate.start(chain(group([bare.s(1)]), merge.s(separator=";")))
    taskstate.start(chain(bare.s(1), merge.s(";")))


def wrong() -> None:
    """Use each of them wrongly, in each way to call or start it."""
    bare("3")  # type: ignore[arg-type]
    bare(3, units="x")  # type: ignore[call-arg]
    bare()  # type: ignore[call-arg]
    bare.start("3")  # type: ignore[arg-type]
    bare.start(3, units="x")  # type: ignore[call-arg]
    bare.start_on_commit("3")  # type: ignore[arg-type]
    bare.delay("3")  # type: ignore[arg-type]
    bare.delay(3, units="x")  # type: ignore[call-arg]
    bare.s("3")  # type: ignore[call-overload]
    bare.s(3, units="x")  # type: ignore[call-overload]
    bare.si("3")  # type: ignore[arg-type]
    named("3")  # type: ignore[arg-type]
    named.start("3")  # type: ignore[arg-type]
    named.start(3, units="x")  # type: ignore[call-arg]
    named.delay("3")  # type: ignore[arg-type]
    named.s("3")  # type: ignore[call-overload]
    named.strat(3)  # type: ignore[attr-defined]
    empty.start("3")  # type: ignore[arg-type]
    bound("3")  # type: ignore[arg-type]
    bound.start("3")  # type: ignore[arg-type]
    bound.s("3")  # type: ignore[call-overload]
    coroutine.start("3")  # type: ignore[arg-type]
    taskstate.start(bare.s(3), tsk_name="report", finishes="no")  # type: ignore[arg-type]
