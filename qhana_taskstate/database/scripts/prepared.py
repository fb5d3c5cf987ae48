"""A statement as a driver, or PostgreSQL itself, takes it: compiled once, then only its values differ."""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Dialect

#: How values are written as PostgreSQL reads them.
_WRITERS: Final[dict[type, Callable[[Any], bytes]]] = {
    str: str.encode,
    bool: lambda value: b"t" if value else b"f",
    int: lambda value: b"%d" % value,
    float: lambda value: repr(value).encode(),
    datetime: lambda value: value.isoformat().encode(),
}


_NAMED: Final = re.compile(r"%\((\w+)\)s|%%")


class Prepared:
    """A statement as the driver takes it.

    Args:
        text: It, with the driver's marks for values.
        binds: What writes each of its values, in order; a name may come again.
        positional: Whether the driver takes its values by place rather than by name.
    """

    def __init__(self, text: str, binds: Sequence[_Bind] = (), *, positional: bool = False) -> None:
        self.text = text
        self._binds = binds
        self._names = [bind.name for bind in binds]
        self._positional = positional
        places: dict[str, int] = {}
        numbered = _NAMED.sub(lambda found: _number(found[1], places), text)
        #: As PostgreSQL itself takes it.
        self.numbered = numbered.encode()
        #: What a server of PostgreSQL calls it. Clients of a pooler such as PgBouncer come to the statements of others:
        #: one name must never mean two.
        self.name = b"taskstate_" + hashlib.sha256(self.numbered).hexdigest()[:32].encode()
        by_name = {bind.name: bind for bind in binds}
        self._numbered = [by_name[name] for name in places]

    @classmethod
    def of(cls, statement: Any, dialect: Dialect) -> Prepared:
        """Compile a statement for a kind of database."""
        compiled = statement.compile(dialect=dialect)
        binds = {
            name: _Bind(name, compiled.params[name], bind.type.dialect_impl(dialect).bind_processor(dialect))
            for bind, name in compiled.bind_names.items()
        }
        positional: list[str] | None = compiled.positiontup
        names = list(binds) if positional is None else positional
        return cls(str(compiled), [binds[name] for name in names], positional=positional is not None)

    def parameters(self, values: Mapping[str, Any]) -> Any:
        """Return the values that the statement takes, its own among them, as the driver takes them."""
        found = []
        # Of each statement of each execution: without calls where it can be.
        for bind in self._binds:
            value = values.get(bind.name, bind.constant)
            found.append(value if bind.convert is None else bind.convert(value))
        return tuple(found) if self._positional else dict(zip(self._names, found, strict=True))

    def encoded(self, values: Mapping[str, Any]) -> list[bytes | None]:
        """Return them as PostgreSQL reads them."""
        found: list[bytes | None] = []
        for bind in self._numbered:
            value = values.get(bind.name, bind.constant)
            if bind.convert is not None:
                value = bind.convert(value)
            found.append(None if value is None else _WRITERS[type(value)](value))
        return found


class _Bind:
    """One value of a statement."""

    __slots__ = ("constant", "convert", "name")

    def __init__(self, name: str, constant: Any, convert: Callable[[Any], Any] | None) -> None:
        self.name = name
        self.constant = constant
        self.convert = convert


def _number(name: str | None, places: dict[str, int]) -> str:
    """Return the mark for a value, numbered by its first place; None is an escaped per cent sign."""
    return "%" if name is None else f"${places.setdefault(name, len(places) + 1)}"


class PerDatabase:
    """A statement that differs between databases.

    Args:
        made: It, by SQLAlchemy's name of each.
    """

    def __init__(self, made: Mapping[str, Any]) -> None:
        self._made = made

    def of(self, name: str) -> Any:
        """Return that of the database that SQLAlchemy calls so."""
        return self._made.get(name, self._made["mysql"])


# Bounded, since a process may make engines again and again.
@functools.lru_cache(maxsize=128)
def prepare(statement: Any, dialect: Dialect) -> Prepared:
    return Prepared.of(statement.of(dialect.name) if isinstance(statement, PerDatabase) else statement, dialect)
