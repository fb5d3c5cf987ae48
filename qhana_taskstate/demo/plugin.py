"""Plugin tasks as a plugin author writes them: no line of them keeps a status, a time or an error.

`read_entities`, a chord of `measure_distances` and `ask_for_k`, and after the user's answer `cluster` and `draw`
are one job. `summarise` and `fail_on_purpose` are jobs of their own.
"""

from __future__ import annotations

import csv
import itertools
import math
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean
from typing import Any

from celery import chain, group

from qhana_taskstate import add_log, add_output, plugin_task, taskstate, track

from . import entities
from .entities import Entities
from .kmedoids import k_medoids
from .plot import scatter_plot

#: How many tasks share the work of measuring distances.
PARTS = 4
#: More entities are left out: the number of distances grows with the square.
MAX_ENTITIES = 600
#: How often the clustering begins anew with other random medoids.
ITERATIONS = 24
#: The step in which the user says how many clusters to make.
STEP = "k"

_DISTANCE_HEADER = ("entity_1_ID", "entity_2_ID", "distance")


def clustering(source: str, folder: str) -> Any:
    """Return the canvas of the first part of the job, up to the question for k.

    Args:
        source: Path or URL of a CSV file.
        folder: Where the outputs go; made if it is missing.
    """
    parts = group(measure_distances.si(part) for part in range(PARTS))
    return chain(read_entities.si(source, folder), parts, ask_for_k.s())


def clustering_with(k: int) -> Any:
    """Return the canvas of the second part of the job, which needs the answer."""
    return chain(cluster.si(k), draw.s())


@plugin_task(name="demo.read_entities")
def read_entities(source: str, folder: str) -> None:
    """Read entities from a CSV file and keep those that have all their numbers."""
    rows = entities.read_rows(source)
    columns = entities.number_columns(rows)
    if len(columns) < 2:
        raise ValueError(f"{source} has {len(columns)} columns of numbers; distances need two or more")
    ids, vectors = [], []
    for number, row in enumerate(track(rows, unit="rows"), 1):
        if all(row[name] for name in columns):
            ids.append(entities.id_of(row, number))
            vectors.append([float(row[name]) for name in columns])
    add_log(f"{len(ids)} of {len(rows)} rows have all of {', '.join(columns)}")
    if len(set(ids)) < len(ids):
        add_log("some ids repeat, so the entities are numbered instead")
        ids = [str(number) for number in range(1, len(ids) + 1)]
    if len(ids) > MAX_ENTITIES:
        add_log(f"only the first {MAX_ENTITIES} of them are used")
        del ids[MAX_ENTITIES:], vectors[MAX_ENTITIES:]
    kept = Entities(columns=columns, ids=ids, vectors=vectors)
    path = entities.write_entities(Path(folder) / "entities.csv", kept)
    add_output(path, file_type="entity/vector", mimetype="text/csv")
    # What the later tasks of the job need to know lives with the job, not in their arguments.
    taskstate.current().data.update(folder=str(path.parent), columns=columns, entities=len(ids))


@plugin_task(name="demo.measure_distances")
def measure_distances(part: int) -> str:
    """Measure the distances of every `PARTS`-th entity to those after it, and return the file that holds them."""
    folder = _folder()
    read = entities.read_entities(folder / "entities.csv")
    path = folder / f"distances-{part}.csv"
    entities.write_table(path, _DISTANCE_HEADER, _distances(read, part))
    return str(path)


def _distances(read: Entities, part: int) -> Iterator[tuple[str, str, str]]:
    vectors = entities.scaled(read.vectors)
    for first in track(range(part, len(vectors), PARTS), unit="entities"):
        for second in range(first + 1, len(vectors)):
            yield read.ids[first], read.ids[second], f"{math.dist(vectors[first], vectors[second]):.4f}"


@plugin_task(name="demo.ask_for_k")
def ask_for_k(parts: list[str]) -> str:
    """Put the distances together and wait for the user's answer."""
    task = taskstate.current()
    whole = itertools.chain.from_iterable(_read_distances(Path(part)) for part in parts)
    path = entities.write_table(_folder() / "distances.csv", _DISTANCE_HEADER, whole)
    for part in parts:
        Path(part).unlink()
    add_output(path, file_type="custom/entity-distances", mimetype="text/csv")
    # A plugin names its own web routes here.
    route = f"{str(taskstate.settings.public_url).rstrip('/')}/demo/{task.id}/{STEP}/"
    task.add_next_step(href=route, ui_href=f"{route}ui/", step_id=STEP)
    return "the distances are measured; how many clusters?"


@plugin_task(name="demo.cluster")
def cluster(k: int) -> list[int]:
    """Divide the entities into k clusters, and return the number of its cluster for each of them."""
    folder = _folder()
    ids = entities.read_entities(folder / "entities.csv").ids
    found = list(track(k_medoids(_square(ids, folder), k, starts=ITERATIONS), total=ITERATIONS, unit="iterations"))
    best = found[-1]
    add_log(f"cost went from {found[0].cost:.1f} to {best.cost:.1f} in {ITERATIONS} iterations")
    middle = {label: ids[medoid] for label, medoid in enumerate(best.medoids)}
    for label, key in middle.items():
        add_log(f"cluster {label}: {best.labels.count(label)} entities around {key}")
    rows = ((key, "", label, middle[label]) for key, label in zip(ids, best.labels, strict=True))
    path = entities.write_table(folder / "clusters.csv", ("ID", "href", "label", "medoid_ID"), rows)
    add_output(path, file_type="entity/label", mimetype="text/csv")
    return list(best.labels)


@plugin_task(name="demo.draw")
def draw(labels: list[int]) -> str:
    """Draw the entities in the colours of their clusters."""
    folder = _folder()
    read = entities.read_entities(folder / "entities.csv")
    points = [(vector[0], vector[1]) for vector in read.vectors]
    path = folder / "clusters.svg"
    path.write_text(scatter_plot(points, labels, read.ids, (read.columns[0], read.columns[1])), encoding="utf-8")
    add_output(path, file_type="custom/plot", mimetype="image/svg+xml")
    return f"{len(set(labels))} clusters of {len(labels)} entities are drawn"


@plugin_task(name="demo.summarise")
def summarise(source: str, folder: str) -> str:
    """Write how many values each column has, and the range of its numbers."""
    rows = entities.read_rows(source)
    numbers = set(entities.number_columns(rows))
    lines = ["| column | values | least | mean | greatest |", "| --- | --- | --- | --- | --- |"]
    for name in track(list(rows[0]), unit="columns"):
        values = [row[name] for row in rows if row[name]]
        lines.append(f"| {name} | {len(values)} | {_shape(values) if name in numbers else ' | | '} |")
    path = Path(folder) / "summary.md"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    add_output(path, file_type="custom/summary", mimetype="text/markdown")
    return f"{len(rows)} rows, {len(lines) - 2} columns, {len(numbers)} of them numbers"


def _shape(values: list[str]) -> str:
    numbers = [float(value) for value in values]
    return f"{min(numbers):g} | {fmean(numbers):.2f} | {max(numbers):g}"


@plugin_task(name="demo.fail_on_purpose")
def fail_on_purpose(source: str) -> None:
    """Go through two thirds of the rows, then raise: progress and log stay, the error is in the log."""
    rows = entities.read_rows(source)
    refused = max(1, len(rows) * 2 // 3)
    for number, row in enumerate(track(rows, unit="rows"), 1):
        if number == refused:
            add_log(f"{number - 1} rows were fine")
            key = entities.id_of(row, number)
            raise ValueError(f"row {number} ({key}) is refused on purpose, to show what an error looks like")


def _folder() -> Path:
    return Path(taskstate.current().data["folder"])


def _read_distances(path: Path) -> Iterator[list[str]]:
    with path.open(newline="", encoding="utf-8") as file:
        yield from itertools.islice(csv.reader(file), 1, None)


def _square(ids: list[str], folder: Path) -> list[list[float]]:
    """Read the distances into a square table, in the order of the ids."""
    place = {key: position for position, key in enumerate(ids)}
    table = [[0.0] * len(ids) for _ in ids]
    for first, second, distance in _read_distances(folder / "distances.csv"):
        row, column = place[first], place[second]
        table[row][column] = table[column][row] = float(distance)
    return table
