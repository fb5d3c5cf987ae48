"""A whole tracked tree: whom it tells of changes, and how it takes over another value."""

from __future__ import annotations

from typing import Any

from .merge import MISSING
from .node import Node, Owner, track_stored
from .tracked_dict import TrackedDict
from .tracked_list import TrackedList


def bind(tree: Any, owner: Owner | None) -> None:
    """Gives a tree its owner, or takes it away with None. Does nothing for a scalar.

    Args:
        tree: The root of a tree, as made by `to_tracked` or `track_stored`.
        owner: Who is told of changes. It is held strongly.

    Raises:
        ValueError: The container is already inside another one.
    """
    if isinstance(tree, Node):
        if tree._parent is not None:
            raise ValueError("only the root of a tree has an owner; bind a copy made by to_tracked")
        tree._owner = owner


def sync(tree: Any, value: Any) -> Any:
    """Makes a tracked tree equal to a plain value without telling its owner.

    References into the tree stay part of it: a container stays itself as long as one of the same kind is at
    the same key of the same dict, or the same index of the same list. One that `value` has no longer is cut
    off. Entries are changed in place (a dict that keeps its keys keeps their order too), so a loop over a
    container goes on undisturbed as long as its keys or its length stay the same.

    Args:
        tree: A tracked root or a scalar.
        value: The JSON value to take over, taken as it is, as by `track_stored`; it is copied.

    Returns:
        The tree. If the kinds of the roots differ, a new one, which takes over the owner, or the scalar
        `value`.
    """
    kept = _synced(tree, value)
    if kept is not tree and isinstance(tree, Node):
        bind(kept, tree._owner)
        tree._owner = None
    return kept


def _synced(old: Any, new: Any) -> Any:
    """What stands for `new` in a tree where `old` was: if the kind is the same, `old`, brought up to date."""
    if isinstance(old, TrackedDict) and isinstance(new, dict):
        _sync_dict(old, new)
        return old
    if isinstance(old, TrackedList) and isinstance(new, list):
        _sync_list(old, new)
        return old
    return track_stored(new)


def _sync_dict(tree: TrackedDict, value: dict[str, Any]) -> None:
    for key in [key for key in tree if key not in value]:
        tree._exchange((dict.pop(tree, key),), ())
    for key, new in value.items():
        old = tree.get(key, MISSING)
        kept = _synced(old, new)
        if kept is not old:
            dict.__setitem__(tree, key, kept)
            tree._exchange((old,), (kept,))


def _sync_list(tree: TrackedList, value: list[Any]) -> None:
    surplus = tree[len(value) :]
    list.__delitem__(tree, slice(len(value), None))
    tree._exchange(surplus, ())
    for index, old in enumerate(tree):
        kept = _synced(old, value[index])
        if kept is not old:
            list.__setitem__(tree, index, kept)
            tree._exchange((old,), (kept,))
    added = [track_stored(item) for item in value[len(tree) :]]
    list.extend(tree, added)
    tree._exchange((), added)
