"""What the captured samples cover of embedding space, in bounded memory: a streaming k-centre.

The doubling algorithm of Charikar, Chekuri, Feder and Motwani ("Incremental clustering and dynamic information
retrieval", STOC 1997): centres stay further apart than a separation, which grows when there are too many centres.
It doubles only where growing to the closest pair would not do, so that more centres remain. Every vector ever added
is within eight times the radius that the best k centres chosen in hindsight would have.
Distances are between unit vectors, where the chord is a metric and ``chord² / 2`` is the cosine distance.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def direction(embedding: NDArray[np.float16] | None) -> NDArray[np.float32] | None:
    """The embedding as a unit vector, float32 [features]; None where it has no direction (zero, or not finite)."""
    if embedding is None:
        return None
    vector = embedding.astype(np.float32)
    length = float(np.sqrt(np.dot(vector, vector)))
    return vector / np.float32(length) if 0 < length < float("inf") else None


class CoreSet:
    """At most ``size`` centres of unit vectors of ``length`` numbers. One thread at a time."""

    def __init__(self, size: int, length: int) -> None:
        self.size = size
        self.length = length
        self._rows = np.empty((size + 1, length), dtype=np.float32)
        self._gaps = np.full((size + 1, size + 1), np.inf)  # chords between centres
        self._radii = np.zeros(size + 1)  # no vector that a centre stands for is further from it
        self._count = 0
        self._separation = 0.0

    def __len__(self) -> int:
        return self._count

    @property
    def centres(self) -> NDArray[np.float32]:
        """The centres, [n, length]; no two are closer than :attr:`separation`."""
        return self._rows[: self._count]

    @property
    def separation(self) -> float:
        """Chord, in [0, 2]; every vector added lies within twice of it from a centre."""
        return self._separation

    def distance(self, vector: NDArray[np.float32]) -> float:
        """Cosine distance in [0, 2] of a unit vector to the nearest centre; 2 while there is none."""
        if not self._count:
            return 2.0
        return min(2.0, max(0.0, 1.0 - float(np.dot(self.centres, vector).max())))

    def add(self, vector: NDArray[np.float32]) -> None:
        """Cover a unit vector."""
        count = self._count
        chords = np.sqrt(np.maximum(0.0, 2.0 - 2.0 * np.dot(self.centres, vector).astype(np.float64)))
        if count and chords.min() <= self._separation:
            nearest = int(chords.argmin())
            self._radii[nearest] = max(self._radii[nearest], chords[nearest])
            return
        self._rows[count] = vector
        self._gaps[count, :count] = self._gaps[:count, count] = chords
        self._radii[count] = 0.0
        self._count = count + 1
        if self._count > self.size:
            self._shrink()

    def _shrink(self) -> None:
        gaps, radii = self._gaps[: self._count, : self._count], self._radii
        one, other = (int(n) for n in np.unravel_index(gaps.argmin(), gaps.shape))
        closest = float(gaps[one, other])
        kept, left = (one, other) if radii[one] >= radii[other] else (other, one)
        if radii[left] + closest <= 2.0 * closest:
            self._separation = closest
            radii[kept] = max(radii[kept], radii[left] + closest)
            self._keep([n for n in range(self._count) if n != left])
        else:
            self._separation = max(2.0 * self._separation, closest)
            self._merge()

    def _merge(self) -> None:
        """Let centres stand for those within the separation."""
        kept: list[int] = []
        for number in range(self._count):
            near = kept[int(self._gaps[number, kept].argmin())] if kept else number
            if self._gaps[number, near] > self._separation:  # also where it is the first: no gap to itself
                kept.append(number)
            else:
                self._radii[near] = max(self._radii[near], self._radii[number] + self._gaps[number, near])
        self._keep(kept)

    def _keep(self, kept: list[int]) -> None:
        count = len(kept)
        self._rows[:count] = self._rows[kept]
        self._gaps[:count, :count] = self._gaps[np.ix_(kept, kept)]
        self._radii[:count] = self._radii[kept]
        self._count = count

    def resized(self, size: int) -> CoreSet:
        """The same cover with at most ``size`` centres."""
        made = CoreSet(size, self.length)
        for vector in self.centres:
            made.add(vector)
        return made
