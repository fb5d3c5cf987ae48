"""k-medoids clustering in plain Python: each cluster is named by the entity in its middle."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterator, Sequence

Distances = Sequence[Sequence[float]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Clustering:
    """One way to divide the entities.

    Attributes:
        cost: Sum of the distances of all entities to their medoids; less is better.
        medoids: Indices of the entities in the middle of the clusters.
        labels: For each entity the number of its cluster, which is a position in `medoids`.
    """

    cost: float
    medoids: tuple[int, ...]
    labels: tuple[int, ...]


def k_medoids(distances: Distances, k: int, *, starts: int, seed: int = 0) -> Iterator[Clustering]:
    """Improve random choices of medoids, one after another, by swapping one medoid at a time.

    Source: PAM in the form that looks at all swaps of a round in O(n²), Schubert and Rousseeuw, "Faster k-medoids
    clustering", 2019.

    Args:
        distances: A square table.
        k: How many clusters.
        starts: How many random choices to improve.
        seed: The same seed gives the same choices.

    Yields:
        The best clustering so far, once a start.

    Raises:
        ValueError: If k is below 2 or not below the number of entities.
    """
    count = len(distances)
    if not 2 <= k < count:
        raise ValueError(f"cannot make {k} clusters of {count} entities; use a number from 2 to {count - 1}")
    chance = random.Random(seed)  # noqa: S311 - repeatable choices are wanted, nothing is secret
    best: Clustering | None = None
    for _ in range(starts):
        found = _improve(distances, chance.sample(range(count), k))
        if best is None or found.cost < best.cost:
            best = found
        yield best


def _improve(distances: Distances, medoids: list[int]) -> Clustering:
    while True:
        labels, nearest, second = _assign(distances, medoids)
        change, position, candidate = _best_swap(distances, medoids, labels, nearest, second)
        # Rounding must not let two equally good choices alternate for ever.
        if change > -1e-9:
            return Clustering(cost=sum(nearest), medoids=tuple(medoids), labels=tuple(labels))
        medoids[position] = candidate


def _assign(distances: Distances, medoids: Sequence[int]) -> tuple[list[int], list[float], list[float]]:
    """Return for each entity its cluster, and the distances to the nearest and the second nearest medoid."""
    labels, nearest, second = [], [], []
    for row in distances:
        order = sorted((row[medoid], position) for position, medoid in enumerate(medoids))
        labels.append(order[0][1])
        nearest.append(order[0][0])
        second.append(order[1][0])
    return labels, nearest, second


def _best_swap(
    distances: Distances, medoids: Sequence[int], labels: Sequence[int], nearest: list[float], second: list[float]
) -> tuple[float, int, int]:
    """Return how the cost changes by the best swap, which medoid goes (its position), and which entity comes."""
    losses = [0.0] * len(medoids)
    for label, near, far in zip(labels, nearest, second, strict=True):
        losses[label] += far - near
    best = (0.0, 0, medoids[0])
    taken = set(medoids)
    for candidate, row in enumerate(distances):
        if candidate in taken:
            continue
        gain, changes = 0.0, list(losses)
        for distance, label, near, far in zip(row, labels, nearest, second, strict=True):
            if distance < near:
                gain += distance - near
                changes[label] += near - far
            elif distance < far:
                changes[label] += distance - far
        position = min(range(len(changes)), key=changes.__getitem__)
        best = min(best, (gain + changes[position], position, candidate))
    return best
