"""JSON values that notice every change made inside them: what stands behind `ProcessingTask.data`.

How a mapped attribute uses it: on every assignment store `to_tracked(value)` (a checked copy) instead of the
value and `bind` it to an owner; after a load store `track_stored(value)`, or, if an older tree of this
attribute is still known, `sync(tree, value)`, so that references taken from that tree go on working. The
owner's `before_change` loads the attribute if it is expired and keeps `to_plain(tree)` as the base; its
`after_change` flags the attribute as modified. At the flush, with the row locked, write
`merge(base, to_plain(tree), value in the row)` and `sync` the tree to what was written. A root that is no
container (text, a number, None) needs none of this; every function here takes one and does the natural thing.

`TrackedDict` and `TrackedList` are a real `dict` and `list`. They hold checked JSON only, and a container that
is put into one is copied, so a tree shares nothing with the outside and no container stands in it twice. A
container that is assigned to the place where it already stands stays itself (`data["rows"] += [1]`,
`rows[:] = sorted(rows)`), and one that is taken out is cut off: changes to it concern nobody.

References point up as well as down. A nested container keeps its root, the root keeps its owner, so that
`get(5).data["rows"].append(1)` finds the row to save although nothing else holds it; such a loop is left to
the garbage collector. An owner that must not be kept alive holds its target weakly itself.

Beyond notice is only C code that writes into the memory of a list without calling its methods: of the
standard library that is `heapq`, and `list.append(rows, 1)` spelled that way. After it, assign a copy:
`data["heap"] = list(data["heap"])`.
"""

from __future__ import annotations

import json
import math
import operator
import reprlib
import sys
from collections.abc import Callable, Iterable, Sequence
from datetime import date, time
from typing import Any, Protocol, Self, SupportsIndex, TypeAlias

from qhana_taskstate.errors import DataValueError, TaskStateError

__all__ = [
    "MAX_DEPTH",
    "JsonValue",
    "Owner",
    "TrackedDict",
    "TrackedList",
    "bind",
    "is_same",
    "merge",
    "sync",
    "to_plain",
    "to_tracked",
    "track_stored",
]

JsonValue: TypeAlias = dict[str, Any] | list[Any] | str | int | float | bool | None

#: How many containers may stand inside each other, the root included. Python's own encoder and decoder give
#: up near 1,000 minus the depth of the calling code, and what was stored must be readable from everywhere.
MAX_DEPTH = 200

_ROOT = "data"
_MAX_PATH_CHARACTERS = 300
_NO_SLOTS: tuple[str, ...] = ()
_END = slice(sys.maxsize, None)
#: Python refuses to write longer whole numbers as text; the limit can be set, but never below 640 digits.
_ALWAYS_PRINTABLE_BITS = 2000

_Key: TypeAlias = str | int


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


class _Missing:
    """The type of the mark for "no such key"."""


_MISSING = _Missing()


class _Refusal(Exception):
    """A value that JSON cannot hold, on its way up from where it was found.

    Attributes:
        keys: The way down to the value, innermost first; filled in by those who pass the refusal on.
        seen: What is wrong, to be read after the path.
    """

    def __init__(self, seen: str) -> None:
        super().__init__(seen)
        self.seen = seen
        self.keys: list[_Key] = []

    def at(self, root: str, keys: Sequence[_Key]) -> DataValueError:
        """The error to raise where the value was assigned below `keys` of `root`."""
        path = root
        for key in (*keys, *reversed(self.keys)):
            if isinstance(key, str):
                # What cannot be printed (a lone surrogate) would make the message itself unprintable.
                path += f"[{json.dumps(key, ensure_ascii=not key.isprintable())}]"
            else:
                path += f"[{key}]"
            if len(path) > _MAX_PATH_CHARACTERS:
                path = path[:_MAX_PATH_CHARACTERS] + "…"
                break
        return DataValueError(f"{path} {self.seen}")


def _type_name(value: object) -> str:
    kind = type(value)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _advice(value: object) -> str:
    """What to do with a value of a type that JSON does not know."""
    if isinstance(value, set | frozenset):
        return "use a list"
    if isinstance(value, bytes | bytearray | memoryview):
        return "store text, for example in base64"
    if isinstance(value, date | time):
        return "store text, for example value.isoformat()"
    if hasattr(type(value), "tolist"):
        return "store value.tolist()"
    return "turn it into text, a number, a list or a dict first"


def _text(value: str) -> str:
    """A plain string, refused if it holds what UTF-8 cannot."""
    plain = value if type(value) is str else str.__str__(value)
    if not plain.isascii():
        try:
            plain.encode()
        except UnicodeEncodeError as error:
            raise _Refusal(
                f"is text (str) with a lone surrogate at index {error.start}, which is no character; "
                'repair it, for example with value.encode("utf-8", "replace").decode()'
            ) from None
    return plain


def _whole(value: int) -> int:
    plain = int.__int__(value)
    if plain.bit_length() > _ALWAYS_PRINTABLE_BITS:
        try:
            int.__repr__(plain)
        except ValueError:
            raise _Refusal(
                f"is a whole number (int) of more than {sys.get_int_max_str_digits()} digits, "
                "which Python does not write as text; store text"
            ) from None
    return plain


def _real(value: float) -> float:
    if not math.isfinite(value):
        seen = f"is {float.__repr__(value)} ({_type_name(value)})"
        raise _Refusal(f"{seen}, which JSON does not know; use None")
    return float.__float__(value)


def _key(key: object) -> str:
    if not isinstance(key, str):
        raise _Refusal(f"has the key {reprlib.repr(key)} ({_type_name(key)}); keys are text in JSON, use str(key)")
    try:
        return _text(key)
    except _Refusal as refusal:
        raise _Refusal(f"has the key {reprlib.repr(key)}, which {refusal.seen}") from None


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
        return _text(value)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return _whole(value)
    if isinstance(value, float):
        return _real(value)
    if not isinstance(value, dict | list | tuple):
        raise _Refusal(f"is a {_type_name(value)}, which JSON cannot hold; {_advice(value)}")
    if id(value) in enclosing:
        raise _Refusal(f"is a {_type_name(value)} that contains itself; JSON has no references")
    if room < 1:
        raise _Refusal(
            f"is a {_type_name(value)} inside {MAX_DEPTH} other containers, which is too deep; store fewer levels"
        )
    enclosing.add(id(value))
    tracked: _Node
    if isinstance(value, dict):
        entries: dict[str, Any] = {}
        for key, item in value.items():
            name = _key(key)
            try:
                entries[name] = _checked(item, room - 1, enclosing)
            except _Refusal as refusal:
                refusal.keys.append(name)
                raise
        tracked = _new_dict(entries)
    else:
        items: list[Any] = []
        for item in value:
            try:
                items.append(_checked(item, room - 1, enclosing))
            except _Refusal as refusal:
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
        if isinstance(item, _Node):
            item._parent = node
    return node


def _new_list(items: list[Any]) -> Any:
    """A root of its own that takes over checked items."""
    node = _CLASSES[list].__new__(_CLASSES[list])
    list.extend(node, items)
    for item in items:
        if isinstance(item, _Node):
            item._parent = node
    return node


class _Node:
    """What both kinds of containers share: the way up, and how values come in and go out."""

    # Each kind names the slots itself: a base that has some cannot be combined with dict and with list.
    __slots__ = _NO_SLOTS

    _parent: Any
    _owner: Owner | None

    def __init_subclass__(cls) -> None:
        """Let a kind track the container that it is."""
        super().__init_subclass__()
        _CLASSES[dict if issubclass(cls, dict) else list] = cls

    def _root(self) -> _Node:
        node: _Node = self
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

    def _keys_from_root(self) -> list[_Key]:
        """The way from the root down to this container. Searches, so that no container must know its key."""
        keys: list[_Key] = []
        node: Any = self
        while (parent := node._parent) is not None:
            places = parent.items() if isinstance(parent, dict) else enumerate(parent)
            # What heapq took out is still linked, but found nowhere.
            keys.append(next((key for key, item in places if item is node), "?"))
            node = parent
        return keys[::-1]

    def _admit(self, value: Any, room: int, key: _Key) -> Any:
        """The checked copy to put at `key`; a container of this very one as it is, for `_place` to judge.

        Raises:
            DataValueError: JSON cannot hold the value.
        """
        if isinstance(value, _Node) and value._parent is self:
            return value
        try:
            return _checked(value, room, set())
        except _Refusal as refusal:
            raise refusal.at(_ROOT, [*self._keys_from_root(), key]) from None

    def _place(self, entering: list[Any], leaving: list[Any]) -> list[Any]:
        """Lets a container that leaves and enters at once stay itself; copies one that stays elsewhere."""
        free = {id(item) for item in leaving if isinstance(item, _Node)}
        taken: set[int] = set()
        placed = []
        for item in entering:
            if isinstance(item, _Node):
                if id(item) in taken or (item._parent is self and id(item) not in free):
                    item = track_stored(item)
                taken.add(id(item))
            placed.append(item)
        return placed

    def _exchange(self, leaving: Iterable[Any], entering: Iterable[Any]) -> None:
        """Brings the way up in line after the entries themselves were changed."""
        for item in leaving:
            if isinstance(item, _Node):
                item._parent = None
        for item in entering:
            if isinstance(item, _Node):
                item._parent = self


class TrackedDict(_Node, dict[str, Any]):
    """A `dict` of JSON values that tells its owner of every change; see the module's description.

    Copies of it (`copy`, `deepcopy`, pickle, `|`) are plain; a shallow one holds the same, tracked,
    containers. Each changing method raises `DataValueError` for what JSON cannot hold, and has then changed
    nothing.
    """

    __slots__ = ("_owner", "_parent")

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Makes an empty root without an owner."""
        node = super().__new__(cls)
        node._parent = None
        node._owner = None
        return node

    def __init__(self, /, *args: Any, **kwargs: Any) -> None:
        """Takes what `dict` takes."""
        if args or kwargs:
            self.update(*args, **kwargs)

    def __copy__(self) -> dict[str, Any]:
        """A plain dict of the same entries."""
        return dict(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        """A plain copy."""
        return to_plain(self)

    def __reduce_ex__(self, protocol: SupportsIndex) -> tuple[Any, ...]:
        """Pickles as a plain dict."""
        return dict, (to_plain(self),)

    def _assign(self, pairs: dict[Any, Any]) -> None:
        room = self._room()
        entering = {}
        for key, value in pairs.items():
            try:
                name = _key(key)
            except _Refusal as refusal:
                raise refusal.at(_ROOT, self._keys_from_root()) from None
            entering[name] = self._admit(value, room, name)
        self._before()
        leaving = [self[name] for name in entering if name in self]
        placed = self._place(list(entering.values()), leaving)
        dict.update(self, zip(entering, placed, strict=True))
        self._exchange(leaving, placed)
        self._after()

    def __setitem__(self, key: str, value: Any, /) -> None:
        """Stores a checked copy of the value."""
        self._assign({key: value})

    def __delitem__(self, key: str, /) -> None:
        """Removes the key, or raises `KeyError`."""
        self.pop(key)

    def __ior__(self, other: Any, /) -> Self:  # type: ignore[misc, override]  # `|` gives a plain dict
        """Does what `update` does."""
        self.update(other)
        return self

    def clear(self) -> None:
        """Removes all entries."""
        self._before()
        leaving = list(self.values())
        dict.clear(self)
        self._exchange(leaving, ())
        self._after()

    def pop(self, key: str, /, *default: Any) -> Any:
        """Removes a key and returns its value; otherwise returns the default or raises `KeyError`."""
        self._before()
        found = key in self
        value = dict.pop(self, key, *default)
        if found:
            self._exchange((value,), ())
            self._after()
        return value

    def popitem(self) -> tuple[str, Any]:
        """Removes the newest entry and returns it, or raises `KeyError`."""
        self._before()
        key, value = dict.popitem(self)
        self._exchange((value,), ())
        self._after()
        return key, value

    def setdefault(self, key: str, default: Any = None, /) -> Any:
        """Returns the value of the key, after storing a checked copy of the default if there was none."""
        try:
            name = _key(key)
        except _Refusal as refusal:
            raise refusal.at(_ROOT, self._keys_from_root()) from None
        entering = self._admit(default, self._room(), name)
        self._before()
        if name in self:
            return self[name]
        placed = self._place([entering], [])
        dict.__setitem__(self, name, placed[0])
        self._exchange((), placed)
        self._after()
        return placed[0]

    def update(self, /, *args: Any, **kwargs: Any) -> None:
        """Stores checked copies of the values, all or none."""
        self._assign(dict(*args, **kwargs))


class TrackedList(_Node, list[Any]):
    """A `list` of JSON values that tells its owner of every change; see the module's description.

    Copies of it (`copy`, `deepcopy`, slices, `+`, pickle) are plain; a shallow one holds the same, tracked,
    containers. Each changing method raises `DataValueError` for what JSON cannot hold, and has then changed
    nothing.
    """

    __slots__ = ("_owner", "_parent")

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Makes an empty root without an owner."""
        node = super().__new__(cls)
        node._parent = None
        node._owner = None
        return node

    def __init__(self, items: Iterable[Any] = (), /) -> None:
        """Takes what `list` takes."""
        self._splice(slice(None), items)

    def __copy__(self) -> list[Any]:
        """A plain list of the same items."""
        return list(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        """A plain copy."""
        return to_plain(self)

    def __reduce_ex__(self, protocol: SupportsIndex) -> tuple[Any, ...]:
        """Pickles as a plain list."""
        return list, (to_plain(self),)

    def _splice(self, where: slice, values: Iterable[Any]) -> None:
        room = self._room()
        start, _, step = where.indices(len(self))
        entering = [self._admit(value, room, start + i * step) for i, value in enumerate(list(values))]
        self._before()
        leaving = self[where]
        placed = self._place(entering, leaving)
        list.__setitem__(self, where, placed)
        self._exchange(leaving, placed)
        self._after()

    def __setitem__(self, index: SupportsIndex | slice, value: Any, /) -> None:
        """Stores a checked copy of the value, or of each value for a slice."""
        if isinstance(index, slice):
            self._splice(index, value)
            return
        position = operator.index(index)
        entering = self._admit(value, self._room(), position + len(self) if position < 0 else position)
        self._before()
        leaving = [self[position]]
        placed = self._place([entering], leaving)
        list.__setitem__(self, position, placed[0])
        self._exchange(leaving, placed)
        self._after()

    def __delitem__(self, index: SupportsIndex | slice, /) -> None:
        """Removes an item or a slice."""
        self._before()
        leaving = self[index] if isinstance(index, slice) else [self[index]]
        list.__delitem__(self, index)
        self._exchange(leaving, ())
        self._after()

    def __iadd__(self, values: Iterable[Any], /) -> Self:  # type: ignore[misc]  # `+` gives a plain list
        """Does what `extend` does."""
        self._splice(_END, values)
        return self

    def __imul__(self, count: SupportsIndex, /) -> Self:
        """Repeats the items; unlike in a plain list each repetition has containers of its own."""
        times = operator.index(count)
        self._before()
        once = list(self)
        if times < 1:
            list.clear(self)
            self._exchange(once, ())
        for _ in range(times - 1):
            again = [track_stored(item) for item in once]
            list.extend(self, again)
            self._exchange((), again)
        self._after()
        return self

    def append(self, value: Any, /) -> None:
        """Adds a checked copy of the value at the end."""
        self._splice(_END, (value,))

    def clear(self) -> None:
        """Removes all items."""
        del self[:]

    def extend(self, values: Iterable[Any], /) -> None:
        """Adds checked copies of the values at the end, all or none."""
        self._splice(_END, values)

    def insert(self, index: SupportsIndex, value: Any, /) -> None:
        """Adds a checked copy of the value before the index."""
        position = operator.index(index)
        self._splice(slice(position, position), (value,))

    def pop(self, index: SupportsIndex = -1, /) -> Any:
        """Removes an item and returns it, or raises `IndexError`."""
        self._before()
        value = list.pop(self, index)
        self._exchange((value,), ())
        self._after()
        return value

    def remove(self, value: Any, /) -> None:
        """Removes the first item that equals the value, or raises `ValueError`."""
        self._before()
        leaving = list.pop(self, self.index(value))
        self._exchange((leaving,), ())
        self._after()

    def reverse(self) -> None:
        """Turns the order round."""
        self._before()
        list.reverse(self)
        self._after()

    def sort(self, *, key: Callable[[Any], Any] | None = None, reverse: bool = False) -> None:
        """Sorts in place. If items cannot be compared or `key` raises, the order stays as it was."""
        self._before()
        before = list(self)
        ordered = sorted(before, key=key, reverse=reverse)
        if len(before) != len(self) or any(old is not new for old, new in zip(before, self, strict=True)):
            raise ValueError("list modified during sort")
        list.__setitem__(self, slice(None), ordered)
        self._after()


def to_tracked(value: object, path: str = _ROOT) -> Any:
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
    except _Refusal as refusal:
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


def to_plain(value: Any) -> Any:
    """Copies a tracked (or plain) value at all depths into plain dicts and lists."""
    if isinstance(value, dict):
        return dict(zip(value, map(to_plain, value.values()), strict=True))
    if isinstance(value, list | tuple):
        return list(map(to_plain, value))
    return value


def bind(tree: Any, owner: Owner | None) -> None:
    """Gives a tree its owner, or takes it away with None. Does nothing for a scalar.

    Args:
        tree: The root of a tree, as made by `to_tracked` or `track_stored`.
        owner: Who is told of changes. It is held strongly; see the module's description.

    Raises:
        ValueError: The container stands inside another one.
    """
    if isinstance(tree, _Node):
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
    if kept is not tree and isinstance(tree, _Node):
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
        old = tree.get(key, _MISSING)
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


def is_same(one: Any, other: Any) -> bool:
    """Whether two JSON values are written the same, but for the order of keys.

    Stricter than `==`, for which 1, 1.0 and True are equal, and 0.0 and -0.0; and NaN is the same as itself.
    """
    if one is other:
        return True
    if isinstance(one, dict):
        same_keys = isinstance(other, dict) and one.keys() == other.keys()
        return same_keys and all(map(is_same, one.values(), map(other.get, one)))
    if isinstance(one, list):
        same_length = isinstance(other, list) and len(one) == len(other)
        return same_length and all(map(is_same, one, other))
    if type(one) is not type(other):
        return False
    if isinstance(one, float):
        return repr(one) == repr(other)
    return bool(one == other)


def merge(base: Any, ours: Any, theirs: Any) -> Any:
    """Puts our changes since `base` on top of what others made of `base` meanwhile.

    Per key of a dict, at any depth of dicts: what we changed, added or deleted wins, and everything else is
    as in `theirs`. A list is one value, like a scalar. Two dicts at the same key are merged, also if neither
    was in `base`. Whether something changed is judged by `is_same`.

    Args:
        base: The value that both sides started from.
        ours: What we made of it.
        theirs: What stands in the database now.

    Returns:
        A plain value that shares no container with the arguments.
    """
    return to_plain(_merged(base, ours, theirs))


def _merged(base: Any, ours: Any, theirs: Any) -> Any:
    """The merge itself; a key that is not there takes part as `_MISSING`."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        common = base if isinstance(base, dict) else {}
        result = {}
        for key in ours | theirs:
            item = _merged(common.get(key, _MISSING), ours.get(key, _MISSING), theirs.get(key, _MISSING))
            if item is not _MISSING:
                result[key] = item
        return result
    return theirs if is_same(ours, base) else ours
