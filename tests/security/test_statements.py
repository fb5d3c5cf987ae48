"""SQL is written with bound values only."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import qhana_taskstate

_PACKAGE = Path(qhana_taskstate.__file__).parent

#: What takes SQL as text.
_TAKES_SQL = {"text", "exec_driver_sql", "execute", "executemany", "executescript"}

#: Names in SQL that are made in the package itself and no value of anybody's: `schema._named_lock`.
_OWN_NAMES = {"name"}


def _unbound(path: Path) -> list[str]:
    """Return the places where a value is put into the text of a statement."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Call) or not node.args:
            continue
        called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if called not in _TAKES_SQL:
            continue
        statement = node.args[0]
        where = f"{path.name}:{node.lineno}"
        is_joined = isinstance(statement, ast.BinOp)
        is_formatted = isinstance(statement, ast.Call) and getattr(statement.func, "attr", "") == "format"
        if is_joined or is_formatted:
            found.append(where)
        elif isinstance(statement, ast.JoinedStr):
            for part in statement.values:
                if isinstance(part, ast.FormattedValue) and not _is_constant(part.value):
                    found.append(where)
    return found


def _is_constant(value: ast.expr) -> bool:
    if isinstance(value, ast.Name):
        return value.id.isupper() or value.id in _OWN_NAMES
    # A number is a number, whatever it was.
    return isinstance(value, ast.Call) and getattr(value.func, "id", "") == "int"


@pytest.mark.parametrize(
    "path",
    # The servers of the tests make databases, whose names cannot be bound.
    [path for path in sorted(_PACKAGE.rglob("*.py")) if "testing" not in path.parts],
    ids=lambda path: path.name,
)
def test_no_value_is_put_into_the_text_of_a_statement(path: Path) -> None:
    assert _unbound(path) == []


def test_the_check_sees_what_it_is_for(tmp_path: Path) -> None:
    for statement in ('f"SELECT {task}"', '"SELECT " + task', '"SELECT %s" % task', '"SELECT {}".format(task)'):
        path = tmp_path / "bad.py"
        path.write_text(f"connection.execute(text({statement}))\n")
        assert _unbound(path) == ["bad.py:1"]
