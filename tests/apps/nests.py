"""Random nests of canvases as plain JSON trees: what Celery makes of them, and how they must end.

A tree is a list whose first item is its kind:

- `["leaf", outcome, seconds]`: a plugin task that sleeps and then does as `outcome` says: `ok`, `fail`, `reject`,
  `ignore`, or `retry:N:` and one of these (N attempts that retry, then the last word). `["plain", …]`: the same, no
  plugin task.
- `["chain", tree, …]`, `["group", tree, …]`, `["chord", body, tree, …]`
- `["link", leaf, tree, …]`: a leaf with callbacks.
- `["replace", tree]`: a task that replaces itself.
- `["spawn", tree, …]`: a task that sends the trees and returns.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from celery import chain, chord, group, shared_task
from celery.exceptions import Ignore, Reject
from celery.utils import uuid

from qhana_taskstate import plugin_task

Tree = list[Any]


def _obey(task: Any, outcome: str, seconds: float) -> None:
    time.sleep(seconds)
    word = outcome
    if outcome.startswith("retry:"):
        _, retries, word = outcome.split(":")
        if task.request.retries < int(retries):
            raise task.retry(countdown=0)
    if word == "fail":
        raise ValueError("as the tree says")
    if word == "reject":
        raise Reject("as the tree says", requeue=False)
    if word == "ignore":
        raise Ignore()


@plugin_task(bind=True, max_retries=10, ignore_result=False)
def leaf(self: Any, outcome: str, seconds: float) -> None:
    """Do as the tree says."""
    _obey(self, outcome, seconds)


@shared_task(bind=True, max_retries=10, ignore_result=False)
def plain(self: Any, outcome: str, seconds: float) -> None:
    """No plugin task: do as the tree says."""
    _obey(self, outcome, seconds)


@plugin_task(bind=True, ignore_result=False)
def replace_by(self: Any, tree: Tree) -> None:
    """Replace this task by a tree."""
    raise self.replace(build(tree))


@plugin_task(ignore_result=False)
def spawn(trees: list[Tree]) -> None:
    """Send trees and return."""
    for tree in trees:
        build(tree).apply_async()


def build(tree: Tree) -> Any:
    """Make the canvas of a tree."""
    kind, *rest = tree
    match kind:
        case "leaf":
            return leaf.si(*rest)
        case "plain":
            return plain.si(*rest)
        case "link":
            first = build(rest[0])
            for callback in rest[1:]:
                # Celery links a callback once, and two that do the same are equal to it but for their ids.
                first.link(build(callback).set(task_id=uuid()))
            return first
        case "chain":
            return chain(*(build(part) for part in rest))
        case "group":
            return group([build(part) for part in rest])
        case "chord":
            body, *header = rest
            return chord([build(part) for part in header], build(body))
        case "replace":
            return replace_by.si(rest[0])
        case "spawn":
            return spawn.si(rest)
    raise ValueError(f"unknown kind {kind!r}")


@dataclass(frozen=True)
class Verdict:
    """How a tree ends.

    Attributes:
        fails: Something in it that is reached fails for good.
        goes_on: What comes after it is reached.
    """

    fails: bool
    goes_on: bool


def judge(tree: Tree) -> Verdict:
    """Tell how a tree ends, by plain recursion."""
    kind, *rest = tree
    match kind:
        case "leaf" | "plain":
            # Celery sends nothing after a task that raised Ignore, as after one that failed.
            word = rest[0].rpartition(":")[2]
            return Verdict(word in {"fail", "reject"}, word == "ok")
        case "replace":
            return judge(rest[0])
        case "spawn":
            # It waits for nothing.
            return Verdict(_side_by_side(rest).fails, True)
        case "group":
            return _side_by_side(rest)
        case "chain":
            return _one_after_the_other(rest)
        case "chord":
            body, *header = rest
            return _one_after_the_other([["group", *header], body])
        case "link":
            first, callbacks = judge(rest[0]), _side_by_side(rest[1:])
            return Verdict(first.fails or (first.goes_on and callbacks.fails), first.goes_on)
    raise ValueError(f"unknown kind {kind!r}")


def _side_by_side(trees: list[Tree]) -> Verdict:
    verdicts = [judge(tree) for tree in trees]
    return Verdict(any(verdict.fails for verdict in verdicts), all(verdict.goes_on for verdict in verdicts))


def _one_after_the_other(trees: list[Tree]) -> Verdict:
    fails = False
    parts = list(_unrolled(trees))
    for part, following in zip(parts, [*parts[1:], None], strict=True):
        verdict = judge(part)
        fails = fails or verdict.fails
        is_sent_by_each = following is not None and following[0] == "chord" and _any_of_its_body_goes_on(part)
        if not (verdict.goes_on or is_sent_by_each):
            return Verdict(fails, False)
    return Verdict(fails, True)


def _unrolled(trees: list[Tree]) -> Iterator[Tree]:
    """Go through the parts of a chain as Celery does, for which a chain in a chain is none."""
    for tree in trees:
        if tree[0] == "chain":
            yield from _unrolled(tree[1:])
        else:
            yield tree


def _any_of_its_body_goes_on(tree: Tree) -> bool:
    """Tell whether a chord with a group as its body sends what follows, if that is a chord.

    Celery links such a chord to each member of the group, and so does not wait for all of them (5.7). Of everything
    else that follows it makes the body of a chord of the group.
    """
    if tree[0] != "chord":
        return False
    body, *header = tree[1:]
    if not _side_by_side(header).goes_on:
        return False
    if body[0] == "group":
        return any(judge(member).goes_on for member in body[1:])
    return _any_of_its_body_goes_on(body)


def succeeds(tree: Tree) -> bool:
    """Tell whether a task whose canvas is this tree must end as SUCCESS."""
    return not judge(tree).fails


def leaves(tree: Tree) -> int:
    """Count the messages that a tree takes if all goes well, retries left out."""
    kind, *rest = tree
    if kind in {"leaf", "plain"}:
        return 1
    return sum(leaves(part) for part in rest) + (kind in {"replace", "spawn"})


def messages(tree: Tree) -> int | None:
    """Count the messages that a tree takes, retries included and Celery's own helpers left out.

    Returns:
        None if a leaf of it does not end well: then the number depends on who is first.
    """
    kind, *rest = tree
    if kind in {"leaf", "plain"}:
        if not rest[0].endswith("ok"):
            return None
        return 1 + (int(rest[0].split(":")[1]) if rest[0].startswith("retry:") else 0)
    parts = [messages(part) for part in rest]
    counts = [part for part in parts if part is not None]
    return sum(counts) + (kind in {"replace", "spawn"}) if len(counts) == len(parts) else None


def random_tree(random_source: random.Random, depth: int = 3, *, failing: float = 0.06) -> Tree:
    """Make a tree.

    Args:
        random_source: Where chance comes from.
        depth: How deep it may nest.
        failing: How likely a leaf fails.
    """
    kinds = ["leaf"] if depth == 0 else ["leaf", "chain", "chain", "group", "chord", "replace", "spawn", "link"]
    kind = random_source.choice(kinds)
    if kind == "leaf":
        return _leaf(random_source, failing)
    below = [
        random_tree(random_source, depth - 1, failing=failing)
        for _ in range(1 if kind == "replace" else random_source.randint(1, 3) + (kind == "chord"))
    ]
    return [kind, _leaf(random_source, failing), *below] if kind == "link" else [kind, *below]


def _leaf(random_source: random.Random, failing: float) -> Tree:
    seconds = random_source.choice([0, 0, 0, 0.005, 0.02])
    return [random_source.choice(["leaf", "leaf", "plain"]), _outcome(random_source, failing), seconds]


def _outcome(random_source: random.Random, failing: float) -> str:
    chance = random_source.random()
    word = "fail" if chance < failing * 0.7 else "reject" if chance < failing else "ok"
    if random_source.random() < failing / 3:
        word = "ignore"
    if random_source.random() < 0.15:
        return f"retry:{random_source.randint(1, 2)}:{word}"
    return word
