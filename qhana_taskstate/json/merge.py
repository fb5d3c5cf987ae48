"""The merge of two changes of one JSON value: a dict key by key, a list as one value."""

from __future__ import annotations

from typing import Any


class _Missing:
    """The type of the mark for "no such key"."""


MISSING = _Missing()


def to_plain(value: Any) -> Any:
    """Copies a tracked (or plain) value at all depths into plain dicts and lists."""
    if isinstance(value, dict):
        return dict(zip(value, map(to_plain, value.values()), strict=True))
    if isinstance(value, list | tuple):
        return list(map(to_plain, value))
    return value


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
        theirs: The value in the database now.

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
            item = _merged(common.get(key, MISSING), ours.get(key, MISSING), theirs.get(key, MISSING))
            if item is not MISSING:
                result[key] = item
        return result
    return theirs if is_same(ours, base) else ours
