"""Entities in a CSV file: rows with an id and some columns of numbers. Plain Python, no task state."""

from __future__ import annotations

import csv
import dataclasses
import io
import math
import urllib.parse
import urllib.request
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import fmean, pstdev

#: A larger file is refused; the demo holds everything in memory.
MAX_BYTES = 20_000_000
#: Seconds a server may be silent while a file is fetched from it.
FETCH_TIMEOUT_SECONDS = 20.0

_ID_NAMES = frozenset({"id", "_id", "entity_id"})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Entities:
    """Rows that have all their numbers.

    Attributes:
        columns: Names of the columns.
        ids: One id per row.
        vectors: One list of numbers per row, in the order of the columns.
    """

    columns: list[str]
    ids: list[str]
    vectors: list[list[float]]


def read_rows(source: str) -> list[dict[str, str]]:
    """Read a CSV file with a header line.

    Args:
        source: A path, or a URL that starts with http:// or https://.

    Returns:
        One dict per row; missing values are empty texts.

    Raises:
        OSError: If the file cannot be read or fetched.
        ValueError: If it is too large, is not UTF-8, or holds no rows.
    """
    text = _decode(_fetch(source), source)
    first_line = text.partition("\n")[0]
    delimiter = max(",;\t|", key=first_line.count)
    reader = csv.DictReader(io.StringIO(text), delimiter=delimiter, restval="")
    rows = [{name: (row[name] or "").strip() for name in reader.fieldnames or ()} for row in reader]
    if not rows:
        raise ValueError(f"{source} has no rows; a CSV file with a header line is needed")
    return rows


def _fetch(source: str) -> bytes:
    scheme = urllib.parse.urlsplit(source).scheme.lower()
    if scheme in {"http", "https"}:
        # The scheme was checked: no file of the worker's machine can be named this way.
        with urllib.request.urlopen(source, timeout=FETCH_TIMEOUT_SECONDS) as reply:  # noqa: S310
            content: bytes = reply.read(MAX_BYTES + 1)
    else:
        with Path(source).open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise ValueError(f"{source} is larger than the {MAX_BYTES} bytes that the demo reads")
    return content


def _decode(content: bytes, source: str) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        raise ValueError(f"{source} is no text in UTF-8: {exc}") from exc


def id_of(row: dict[str, str], number: int) -> str:
    """Return the id of a row: its column ID if there is one, else its number, counted from 1."""
    return next((value for name, value in row.items() if name.lower() in _ID_NAMES and value), str(number))


def number_columns(rows: Sequence[dict[str, str]]) -> list[str]:
    """Name the columns that hold numbers in at least half of the rows, and nothing else."""
    return [
        name
        for name in rows[0]
        if name.lower() not in _ID_NAMES and _holds_numbers([row[name] for row in rows if row[name]], len(rows))
    ]


def _holds_numbers(values: Sequence[str], row_count: int) -> bool:
    return 2 * len(values) >= row_count and all(_is_number(value) for value in values)


def _is_number(value: str) -> bool:
    try:
        return math.isfinite(float(value))
    except ValueError:
        return False


def scaled(vectors: Sequence[Sequence[float]]) -> list[list[float]]:
    """Shift and scale each column to mean 0 and standard deviation 1, so that its unit does not matter."""
    columns = list(zip(*vectors, strict=True))
    shapes = [(fmean(column), pstdev(column) or 1.0) for column in columns]
    return [[(value - mean) / spread for value, (mean, spread) in zip(row, shapes, strict=True)] for row in vectors]


def write_table(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> Path:
    """Write a CSV file and return its path. The folder is made if it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
    return path


def write_entities(path: Path, entities: Entities) -> Path:
    """Write entities as CSV: the column ID, then the numbers."""
    rows = ([key, *vector] for key, vector in zip(entities.ids, entities.vectors, strict=True))
    return write_table(path, ["ID", *entities.columns], rows)


def read_entities(path: Path) -> Entities:
    """Read what `write_entities` wrote."""
    with path.open(newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    return Entities(
        columns=header[1:],
        ids=[row[0] for row in rows],
        vectors=[[float(value) for value in row[1:]] for row in rows],
    )
