"""A dict that notices every change."""

from __future__ import annotations

from typing import Any, Self, SupportsIndex

from .check import ROOT, Refusal, checked_key
from .merge import to_plain
from .node import Node


class TrackedDict(Node, dict[str, Any]):
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
                name = checked_key(key)
            except Refusal as refusal:
                raise refusal.at(ROOT, self._keys_from_root()) from None
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
            name = checked_key(key)
        except Refusal as refusal:
            raise refusal.at(ROOT, self._keys_from_root()) from None
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
