"""What is started, and how it ends if nothing strikes. A plan follows from the seed and its number alone."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

#: How often each kind of plan is chosen.
_WEIGHTS: Final = {
    "single": 4,
    "kept": 2,
    "kept_chain": 1,
    "late": 3,
    "talks": 3,
    "stores": 2,
    "retries": 2,
    "chain": 2,
    "group": 2,
    "chord": 2,
    "nest": 2,
    "replaced": 1,
    "spawns": 1,
    "asks": 2,
    "later": 1,
    "fails": 1,
    "fails_twice": 1,
    "chain_fails": 1,
}


@dataclass(frozen=True, slots=True)
class Plan:
    """One job.

    Attributes:
        number: Its number in the run.
        kind: Which canvas.
        nodes: All members that have to run to their end before the job may be a success.
        forbidden: Members that must never begin.
        succeeds: Whether it ends as SUCCESS if nothing strikes.
        survives: Whether it ends so although its workers and children are killed.
        subscribes: Whether a webhook is to be told.
    """

    number: int
    kind: str
    nodes: tuple[str, ...]
    forbidden: tuple[str, ...] = ()
    succeeds: bool = True
    survives: bool = False
    subscribes: bool = False


_NODES: Final[dict[str, tuple[str, ...]]] = {
    "chain": ("a", "b", "c"),
    "kept_chain": ("a", "b"),
    "group": ("a", "b", "c", "d"),
    "chord": ("a", "b", "c", "body"),
    "nest": ("a", "b", "c", "body", "last"),
    "replaced": ("first", "b", "c"),
    "spawns": ("first", "b", "c"),
    "asks": ("first", "answer"),
    "fails": (),
    "fails_twice": (),
    "chain_fails": ("a",),
}


def plan_of(seed: int, number: int) -> Plan:
    """Return the plan with a number."""
    chance = random.Random(f"{seed} {number}")  # noqa: S311  (to be the same again, not to be secret)
    kind = chance.choices(list(_WEIGHTS), list(_WEIGHTS.values()))[0]
    return Plan(
        number,
        kind,
        _NODES.get(kind, ("a",)),
        forbidden=("c",) if kind == "chain_fails" else (),
        succeeds=kind not in ("fails", "fails_twice", "chain_fails"),
        survives=kind == "late",
        subscribes=chance.random() < 0.3,
    )


def canvas_of(plan: Plan, tasks: Any) -> Any:
    """Return what is to be started for a plan.

    Args:
        plan: The plan.
        tasks: The module with the tasks (`app`), which only processes of the deployment can import.
    """
    return _CANVASES.get(plan.kind, _single)(plan, tasks)


def _single(plan: Plan, tasks: Any) -> Any:
    return getattr(tasks, plan.kind).si(plan.number, "a")


def _chain(plan: Plan, tasks: Any) -> Any:
    return tasks.chain(*(tasks.single.si(plan.number, node) for node in plan.nodes))


def _kept_chain(plan: Plan, tasks: Any) -> Any:
    return tasks.chain(*(tasks.kept.si(plan.number, node) for node in plan.nodes))


def _group(plan: Plan, tasks: Any) -> Any:
    return tasks.group([tasks.single.si(plan.number, node) for node in plan.nodes])


def _chord(plan: Plan, tasks: Any) -> Any:
    members = [tasks.single.si(plan.number, node) for node in "abc"]
    return tasks.chord(members, tasks.single.si(plan.number, "body"))


def _nest(plan: Plan, tasks: Any) -> Any:
    members = tasks.group([tasks.single.si(plan.number, node) for node in "bc"])
    body = tasks.single.si(plan.number, "body")
    return tasks.chain(
        tasks.single.si(plan.number, "a"), tasks.chord(members, body), tasks.single.si(plan.number, "last")
    )


def _first(plan: Plan, tasks: Any) -> Any:
    return getattr(tasks, plan.kind).si(plan.number, "first")


def _later(plan: Plan, tasks: Any) -> Any:
    return tasks.single.si(plan.number, "a").set(countdown=2)


def _chain_fails(plan: Plan, tasks: Any) -> Any:
    return tasks.chain(
        tasks.single.si(plan.number, "a"), tasks.fails.si(plan.number, "b"), tasks.single.si(plan.number, "c")
    )


_CANVASES: Final[dict[str, Callable[[Plan, Any], Any]]] = {
    "chain": _chain,
    "kept_chain": _kept_chain,
    "group": _group,
    "chord": _chord,
    "nest": _nest,
    "replaced": _first,
    "spawns": _first,
    "asks": _first,
    "later": _later,
    "chain_fails": _chain_fails,
}
