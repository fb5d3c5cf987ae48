"""How large the package's modules, functions and folders are, and who builds statements that write.

`python -m tests.packaging.sizes` prints a table and what is too large, and ends with code 1 if something is.
"""

from __future__ import annotations

import ast
import statistics
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

PACKAGE: Final = Path(__file__).parents[2] / "qhana_taskstate"

#: Lines of a module, the median of all modules, lines of a function's body without its docstring, modules of a folder
#: besides `__init__`.
MODULE_LINES, MEDIAN_LINES, FUNCTION_LINES, FOLDER_MODULES = 300, 150, 50, 9

#: A migration is never edited, so it is not split either.
_MIGRATIONS: Final = "database/migrations/"

#: The only folders that build INSERT, UPDATE and DELETE; the two modules of `database` are the tool for one kind of
#: INSERT, which each kind of database writes in its own way. What makes databases for tests empties them too.
_WRITERS: Final = (
    "store/",
    "webhooks/",
    "upkeep/",
    _MIGRATIONS,
    "database/inserts.py",
    "database/dialects.py",
    "testing/fixtures/templates.py",
)

#: What SQLAlchemy and `database.inserts` offer to build a statement that writes.
_BUILDERS: Final = frozenset({"insert", "update", "delete", "absent", "insert_absent"})
_WRITE_WORDS: Final = ("INSERT ", "UPDATE ", "DELETE ", "REPLACE ", "MERGE ", "TRUNCATE ")

#: What may break a rule: the place and the rule, and why.
EXCEPTIONS: Final = {
    ("", "modules"): "the top folder holds the facade, its wiring, and the values that all folders share",
}


@dataclass(frozen=True, order=True)
class Finding:
    """One thing that breaks a rule.

    Attributes:
        place: The folder or module below the package.
        rule: `lines`, `modules`, `median`, `function` or `writes`.
        text: What is wrong with it.
    """

    place: str
    rule: str
    text: str

    @property
    def exception(self) -> str | None:
        """Why it may break the rule, None if it may not."""
        return EXCEPTIONS.get((self.place, self.rule))

    def __str__(self) -> str:
        return f"{self.place or '.'}: {self.text}"


@dataclass(frozen=True)
class Module:
    """A module of the package: its path below it, and its source."""

    path: str
    source: str

    @property
    def lines(self) -> int:
        """How many lines it has."""
        return len(self.source.splitlines())

    @property
    def folder(self) -> str:
        """The folder that it is in, "" for the top one."""
        return self.path.rpartition("/")[0]


def modules(package: Path = PACKAGE) -> list[Module]:
    """Read all modules of a package, the largest first."""
    found = [
        Module(path.relative_to(package).as_posix(), path.read_text(encoding="utf-8")) for path in package.rglob("*.py")
    ]
    return sorted(found, key=lambda module: (-module.lines, module.path))


def counted(found: list[Module]) -> list[Module]:
    """Leave out what has no size worth a rule: migrations, and the `__init__` of a folder."""
    return [one for one in found if not one.path.startswith(_MIGRATIONS) and not one.path.endswith("__init__.py")]


def check(found: list[Module]) -> list[Finding]:
    """Return all that breaks a rule, also what is excepted."""
    sized = counted(found)
    findings = [
        Finding(module.path, "lines", f"{module.lines} lines, at most {MODULE_LINES}; split it by subject")
        for module in sized
        if module.lines > MODULE_LINES
    ]
    for folder, count in Counter(module.folder for module in sized).items():
        if count > FOLDER_MODULES:
            findings.append(
                Finding(folder, "modules", f"{count} modules, at most {FOLDER_MODULES}; make a folder in it")
            )
    median = statistics.median(module.lines for module in sized)
    if median > MEDIAN_LINES:
        findings.append(Finding("", "median", f"the median of all modules is {median:g} lines, at most {MEDIAN_LINES}"))
    for module in sized:
        findings += _long_functions(module)
    for module in found:
        if not module.path.startswith(_WRITERS):
            findings += _writes(module)
    return sorted(findings)


def _long_functions(module: Module) -> Iterator[Finding]:
    for node in ast.walk(ast.parse(module.source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body[1:] if ast.get_docstring(node, clean=False) is not None else node.body
            lines = body[-1].end_lineno - body[0].lineno + 1 if body and body[-1].end_lineno else 0
            if lines > FUNCTION_LINES:
                yield Finding(module.path, "function", f"{node.name} has {lines} lines, at most {FUNCTION_LINES}")


def _writes(module: Module) -> Iterator[Finding]:
    tree = ast.parse(module.source)
    builders = {
        name.asname or name.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(("sqlalchemy", "database", "inserts"))
        for name in node.names
        if name.name in _BUILDERS
    }
    for node in ast.walk(tree):
        built = _built(node, builders)
        if built is not None:
            line = getattr(node, "lineno", 0)
            yield Finding(module.path, "writes", f"line {line} builds {built}; let store, webhooks or upkeep do it")


def _built(node: ast.AST, builders: set[str]) -> str | None:
    """Return what a node builds: a call of a builder, a method of a table, or SQL as text."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return next((word.strip() for word in _WRITE_WORDS if node.value.lstrip().startswith(word)), None)
    if not isinstance(node, ast.Call):
        return None
    called = node.func
    if isinstance(called, ast.Name) and called.id in builders:
        return called.id
    if isinstance(called, ast.Attribute) and called.attr in _BUILDERS:
        owner = called.value
        name = owner.id if isinstance(owner, ast.Name) else owner.attr if isinstance(owner, ast.Attribute) else ""
        if name in {"sqlalchemy", "sa", "__table__", "inserts"} or name.endswith("_table"):
            return called.attr
    return None


def main() -> int:
    """Print the sizes and what breaks a rule; returns the exit code."""
    found = modules()
    sized = counted(found)
    median = statistics.median(module.lines for module in sized)
    print(f"{len(sized)} modules, median {median:g} lines; the largest:")
    for module in sized[:10]:
        print(f"  {module.lines:4} {module.path}")
    findings = check(found)
    broken = [finding for finding in findings if finding.exception is None]
    for finding in findings:
        print(f"broken: {finding}" if finding.exception is None else f"excepted: {finding} ({finding.exception})")
    for place, rule in EXCEPTIONS.keys() - {(finding.place, finding.rule) for finding in findings}:
        print(f"no exception is needed any more for {rule} of {place or '.'}")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
