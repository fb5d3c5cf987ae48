"""What JSON can hold, and where in a value it cannot."""

from __future__ import annotations

import json
import math
import reprlib
import sys
from collections.abc import Sequence
from datetime import date, time
from typing import Any, TypeAlias

from ..errors import DataValueError

JsonValue: TypeAlias = dict[str, Any] | list[Any] | str | int | float | bool | None


#: How many containers may stand inside each other, the root included. Python's own encoder and decoder give
#: up near 1,000 minus the depth of the calling code, and what was stored must be readable from everywhere.
MAX_DEPTH = 200


ROOT = "data"


_MAX_PATH_CHARACTERS = 300


#: Python refuses to write longer whole numbers as text; the limit can be set, but never below 640 digits.
_ALWAYS_PRINTABLE_BITS = 2000


Key: TypeAlias = str | int


class Refusal(Exception):
    """A value that JSON cannot hold, on its way up from where it was found.

    Attributes:
        keys: The way down to the value, innermost first; filled in by those who pass the refusal on.
        seen: What is wrong, to be read after the path.
    """

    def __init__(self, seen: str) -> None:
        super().__init__(seen)
        self.seen = seen
        self.keys: list[Key] = []

    def at(self, root: str, keys: Sequence[Key]) -> DataValueError:
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


def type_name(value: object) -> str:
    kind = type(value)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def advice(value: object) -> str:
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


def text(value: str) -> str:
    """A plain string, refused if it holds what UTF-8 cannot."""
    plain = value if type(value) is str else str.__str__(value)
    if not plain.isascii():
        try:
            plain.encode()
        except UnicodeEncodeError as error:
            raise Refusal(
                f"is text (str) with a lone surrogate at index {error.start}, which is no character; "
                'repair it, for example with value.encode("utf-8", "replace").decode()'
            ) from None
    return plain


def whole(value: int) -> int:
    plain = int.__int__(value)
    if plain.bit_length() > _ALWAYS_PRINTABLE_BITS:
        try:
            int.__repr__(plain)
        except ValueError:
            raise Refusal(
                f"is a whole number (int) of more than {sys.get_int_max_str_digits()} digits, "
                "which Python does not write as text; store text"
            ) from None
    return plain


def real(value: float) -> float:
    if not math.isfinite(value):
        seen = f"is {float.__repr__(value)} ({type_name(value)})"
        raise Refusal(f"{seen}, which JSON does not know; use None")
    return float.__float__(value)


def checked_key(key: object) -> str:
    if not isinstance(key, str):
        raise Refusal(f"has the key {reprlib.repr(key)} ({type_name(key)}); keys are text in JSON, use str(key)")
    try:
        return text(key)
    except Refusal as refusal:
        raise Refusal(f"has the key {reprlib.repr(key)}, which {refusal.seen}") from None
