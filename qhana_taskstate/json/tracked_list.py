"""A list that notices every change."""

from __future__ import annotations

import operator
import sys
from collections.abc import Callable, Iterable
from typing import Any, Self, SupportsIndex

from .merge import to_plain
from .node import Node, track_stored

_END = slice(sys.maxsize, None)


class TrackedList(Node, list[Any]):
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
