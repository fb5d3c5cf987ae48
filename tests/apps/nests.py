"""Random nests of canvases as plain JSON trees: what Celery makes of them, and how they must end.

A tree is a list whose first item is its kind:

- `["leaf", outcome, seconds]`: a task that sleeps and then does as `outcome` says: `ok`, `fail`, `ignore`, or
  `retry:N:ok` and `retry:N:fail` (N attempts that retry, then the last word).
- `["chain", tree, …]`, `["group", tree, …]`, `["chord", body, tree, …]`
- `["replace", tree]`: a task that replaces itself.
- `["spawn", tree, …]`: a task that sends the trees and returns.
"""

from __future__ import annotations

import random
import time
from typing import Any

from celery import chain, chord, group

from qhana_taskstate import plugin_task

Tree = list[Any]


@plugin_task(bind=True, max_retries=10, ignore_result=False)
def leaf(self: Any, outcome: str, seconds: float) -> None:
    """Do as the tree says."""
    time.sleep(seconds)
    word = outcome
    if outcome.startswith("retry:"):
        _, retries, word = outcome.split(":")
        if self.request.retries < int(retries):
            raise self.retry(countdown=0)
    if word == "fail":
        raise ValueError("as the tree says")


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


def succeeds(tree: Tree) -> bool:
    """Tell whether a tree succeeds, by plain recursion: what comes next runs only if all before it succeeded."""
    kind, *rest = tree
    match kind:
        case "leaf":
            return not rest[0].endswith("fail")
        case "replace":
            return succeeds(rest[0])
        case _:
            # Whatever fails, and is reached because nothing before it failed, fails the whole.
            return all(succeeds(part) for part in rest)


def leaves(tree: Tree) -> int:
    """Count the messages that a tree takes if all goes well, retries left out."""
    kind, *rest = tree
    if kind == "leaf":
        return 1
    return sum(leaves(part) for part in rest) + (kind in {"replace", "spawn"})


def random_tree(random_source: random.Random, depth: int = 3, *, failing: float = 0.06) -> Tree:
    """Make a tree.

    Args:
        random_source: Where chance comes from.
        depth: How deep it may nest.
        failing: How likely a leaf fails.
    """
    kinds = ["leaf"] if depth == 0 else ["leaf", "chain", "chain", "group", "chord", "replace", "spawn"]
    kind = random_source.choice(kinds)
    if kind == "leaf":
        return ["leaf", _outcome(random_source, failing), random_source.choice([0, 0, 0, 0.005, 0.02])]
    if kind == "replace":
        return ["replace", random_tree(random_source, depth - 1, failing=failing)]
    count = random_source.randint(1, 3)
    return [kind, *(random_tree(random_source, depth - 1, failing=failing) for _ in range(count + (kind == "chord")))]


def _outcome(random_source: random.Random, failing: float) -> str:
    word = "fail" if random_source.random() < failing else "ok"
    if random_source.random() < 0.15:
        return f"retry:{random_source.randint(1, 2)}:{word}"
    return word
