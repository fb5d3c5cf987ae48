"""What docstrings and comments of the package name in backticks as a module or a member of one is there."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "qhana_taskstate"

MODULES = {
    path.relative_to(PACKAGE).with_suffix("").as_posix().removesuffix("/__init__").replace("/", ".")
    for path in PACKAGE.rglob("*.py")
} - {"__init__"}

#: Names of others that begin like a module of ours.
OF_OTHERS = {"json.dumps", "registry.dispose", "api.register_blueprint", "qhana.task.status"}

#: The last names of modules, such as `workers` of `broker.workers`.
LAST_NAMES = {module.rpartition(".")[2] for module in MODULES}


@cache
def _names(module: str) -> frozenset[str]:
    """Return what a module or package binds, and what its classes have."""
    path = PACKAGE / module.replace(".", "/")
    tree = ast.parse((path.with_suffix(".py") if not path.is_dir() else path / "__init__.py").read_text())
    found = {name.removeprefix(f"{module}.") for name in MODULES if name.startswith(f"{module}.")}
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Store):
            found.add(node.id if isinstance(node, ast.Name) else node.attr)
        elif isinstance(node, ast.alias):
            found.add((node.asname or node.name).split(".")[0])
    return frozenset(found)


def _texts(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield ast.get_docstring(node) or ""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.string


def missing(source: str, folder: str = "") -> list[str]:
    """Return the names in backticks that begin with a module of the package and lead nowhere.

    Args:
        source: Of a module.
        folder: The dotted folder that it is in, whose modules it may name without it.
    """
    return sorted(
        name
        for text in _texts(source)
        for name in re.findall(r"`((?:qhana_taskstate\.)?[a-z_]+(?:\.[A-Za-z_]+)+)(?:\(\))?`", text)
        if name not in OF_OTHERS and _leads_nowhere(name, folder)
    )


def _leads_nowhere(name: str, folder: str) -> bool:
    given = name.removeprefix("qhana_taskstate.").split(".")
    if given[0] not in LAST_NAMES | {module.split(".")[0] for module in MODULES}:
        return False
    # A module is named by its folder, from the folder that it is named in, or by its last name alone.
    for length in range(len(given), 0, -1):
        head, rest = ".".join(given[:length]), given[length:]
        for module in MODULES:
            is_meant = module in {head, f"{folder}.{head}"} or module.endswith(f".{head}")
            if is_meant and (not rest or rest[0] in _names(module)):
                return False
    return True


def test_each_name_of_a_module_leads_somewhere() -> None:
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE).parts
        found["/".join(parts)] = missing(path.read_text(), ".".join(parts[:-1]))
    assert len(found) > 200
    assert {path: names for path, names in found.items() if names} == {}


def test_a_name_that_leads_nowhere_is_seen() -> None:
    text = (
        '"""See `broker.Broker`, `broker.lost_messages.Broker`, `workers.No`."""\n# As `store.register`, `celery.no`.'
    )
    assert missing(text) == ["broker.Broker", "store.register", "workers.No"]
