"""What a tracked dict and a tracked list share: parent, owner, and the check of new values."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

from ..errors import TaskStateError
from .check import MAX_DEPTH, ROOT, Key, Refusal, advice, checked_key, real, text, type_name, whole

_NO_SLOTS: tuple[str, ...] = ()


class Owner(Protocol):
    """What a tree belongs to: told of each change of any container in it."""

    def before_change(self) -> None:
        """Called once before a change, after the new value was checked.

        May `sync` the very tree that is about to change. If this cuts off the container that was to be
        changed, the change is refused with a `TaskStateError` rather than lost. What it raises stops the
        change.
        """

    def after_change(self) -> None:
        """Called once after a change. Not called if nothing changed, as in `pop("absent", None)`."""


def _checked(value: object, room: int, enclosing: set[int]) -> Any:
    """A checked copy of a value, tracked where it is a container.

    Args:
        value: Anything.
        room: How many containers may still stand inside each other here.
        enclosing: The ids of the containers that `value` was found in.

    Raises:
        _Refusal: JSON cannot hold the value or something in it.
    """
    if isinstance(value, str):
        return text(value)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return whole(value)
    if isinstance(value, float):
        return real(value)
    if not isinstance(value, dict | list | tuple):
        raise Refusal(f"is a {type_name(value)}, which JSON cannot hold; {advice(value)}")
    if id(value) in enclosing:
        raise Refusal(f"is a {type_name(value)} that contains itself; JSON has no references")
    if room < 1:
        raise Refusal(
            f"is a {type_name(value)} inside {MAX_DEPTH} other containers, which is too deep; store fewer levels"
        )
    enclosing.add(id(value))
    tracked: Node
    if isinstance(value, dict):
        entries: dict[str, Any] = {}
        for key, item in value.items():
            name = checked_key(key)
            try:
                entries[name] = _checked(item, room - 1, enclosing)
            except Refusal as refusal:
                refusal.keys.append(name)
                raise
        tracked = _new_dict(entries)
    else:
        items: list[Any] = []
        for item in value:
            try:
                items.append(_checked(item, room - 1, enclosing))
            except Refusal as refusal:
                refusal.keys.append(len(items))
                raise
        tracked = _new_list(items)
    enclosing.remove(id(value))
    return tracked


#: The class that tracks each kind of container.
_CLASSES: dict[type, Any] = {}


def _new_dict(entries: dict[str, Any]) -> Any:
    """A root of its own that takes over checked entries."""
    node = _CLASSES[dict].__new__(_CLASSES[dict])
    dict.update(node, entries)
    for item in entries.values():
        if isinstance(item, Node):
            item._parent = node
    return node


def _new_list(items: list[Any]) -> Any:
    """A root of its own that takes over checked items."""
    node = _CLASSES[list].__new__(_CLASSES[list])
    list.extend(node, items)
    for item in items:
        if isinstance(item, Node):
            item._parent = node
    return node


class Node:
    """What both kinds of containers share: the way up, and how values come in and go out."""

    # Each kind names the slots itself: a base that has some cannot be combined with dict and with list.
    __slots__ = _NO_SLOTS

    _parent: Any
    _owner: Owner | None

    def __init_subclass__(cls) -> None:
        """Let a kind track the container that it is."""
        super().__init_subclass__()
        _CLASSES[dict if issubclass(cls, dict) else list] = cls

    def _root(self) -> Node:
        node: Node = self
        while node._parent is not None:
            node = node._parent
        return node

    def _before(self) -> None:
        owner = self._root()._owner
        if owner is None:
            return
        owner.before_change()
        if self._root()._owner is None:
            raise TaskStateError(
                f"this {'dict' if isinstance(self, dict) else 'list'} is no longer part of the task's data: "
                "somebody else removed it since it was read; take what there is now from the task's data"
            )

    def _after(self) -> None:
        owner = self._root()._owner
        if owner is not None:
            owner.after_change()

    def _room(self) -> int:
        """How many containers may stand inside each other in this one."""
        room, node = MAX_DEPTH, self._parent
        while node is not None:
            room, node = room - 1, node._parent
        return room - 1

    def _keys_from_root(self) -> list[Key]:
        """The way from the root down to this container. Searches, so that no container must know its key."""
        keys: list[Key] = []
        node: Any = self
        while (parent := node._parent) is not None:
            places = parent.items() if isinstance(parent, dict) else enumerate(parent)
            # What heapq took out is still linked, but found nowhere.
            keys.append(next((key for key, item in places if item is node), "?"))
            node = parent
        return keys[::-1]

    def _admit(self, value: Any, room: int, key: Key) -> Any:
        """The checked copy to put at `key`; a container of this very one as it is, for `_place` to judge.

        Raises:
            DataValueError: JSON cannot hold the value.
        """
        if isinstance(value, Node) and value._parent is self:
            return value
        try:
            return _checked(value, room, set())
        except Refusal as refusal:
            raise refusal.at(ROOT, [*self._keys_from_root(), key]) from None

    def _place(self, entering: list[Any], leaving: list[Any]) -> list[Any]:
        """Lets a container that leaves and enters at once stay itself; copies one that stays elsewhere."""
        free = {id(item) for item in leaving if isinstance(item, Node)}
        taken: set[int] = set()
        placed = []
        for item in entering:
            if isinstance(item, Node):
                if id(item) in taken or (item._parent is self and id(item) not in free):
                    item = track_stored(item)
                taken.add(id(item))
            placed.append(item)
        return placed

    def _exchange(self, leaving: Iterable[Any], entering: Iterable[Any]) -> None:
        """Brings the way up in line after the entries themselves were changed."""
        for item in leaving:
            if isinstance(item, Node):
                item._parent = None
        for item in entering:
            if isinstance(item, Node):
                item._parent = self


def to_tracked(value: object, path: str = ROOT) -> Any:
    """Checks a value and copies it, containers as tracked ones.

    Args:
        value: Any JSON value. Tuples become lists and members of `IntEnum` and `StrEnum` (any subclass of the
            plain types) their plain value, as `json.dumps` has it; unlike there, keys must be text.
        path: What to call the value in errors.

    Returns:
        A `TrackedDict` or `TrackedList` without an owner, or the plain scalar.

    Raises:
        DataValueError: JSON (or UTF-8, for a lone surrogate) cannot hold a part of the value; names its path.
    """
    try:
        return _checked(value, MAX_DEPTH, set())
    except Refusal as refusal:
        raise refusal.at(path, ()) from None


def track_stored(value: Any) -> Any:
    """Copies a value that was read from the database, containers as tracked ones.

    Nothing is refused: rows written by other programs may hold NaN, and must stay readable.

    Args:
        value: A plain or tracked JSON value.

    Returns:
        A `TrackedDict` or `TrackedList` without an owner, or the scalar.
    """
    if isinstance(value, dict):
        return _new_dict(dict(zip(value, map(track_stored, value.values()), strict=True)))
    if isinstance(value, list | tuple):
        return _new_list(list(map(track_stored, value)))
    return value
