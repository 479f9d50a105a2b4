"""Near-duplicates of what was captured lately: frames of one scene cost bytes and teach nothing twice."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgeloop.samples.selection import Duplicates

#: Rows multiplied at a time: few enough for the library to stay on this thread, where a model may use the others.
_BLOCK = 64


class _Ring:
    """The newest ``size`` of something that numpy holds in rows."""

    def __init__(self, rows: NDArray[np.float32] | NDArray[np.uint64]) -> None:
        self._rows = rows
        self._added = 0

    def __len__(self) -> int:
        return min(self._added, len(self._rows))

    def _put(self, row: NDArray[np.float32] | np.uint64) -> None:
        self._rows[self._added % len(self._rows)] = row
        self._added += 1


class LateVectors(_Ring):
    """The newest unit vectors. One thread at a time."""

    def __init__(self, size: int, length: int) -> None:
        self._vectors = np.zeros((size, length), dtype=np.float32)
        self._products = np.empty(size, dtype=np.float32)
        super().__init__(self._vectors)

    @property
    def length(self) -> int:
        """Numbers of a vector."""
        return int(self._vectors.shape[1])

    def has_near(self, vector: NDArray[np.float32], within: float) -> bool:
        """Whether one is at most the cosine distance ``within`` from a unit vector."""
        count = len(self)
        for first in range(0, count, _BLOCK):
            block = slice(first, min(count, first + _BLOCK))
            np.dot(self._vectors[block], vector, out=self._products[block])
        # float32 dot products of equal unit vectors miss 1 by a few parts in ten million.
        return bool(count) and 1.0 - float(self._products[:count].max()) <= within + 1e-6

    def add(self, vector: NDArray[np.float32]) -> None:
        """Remember a unit vector in place of the oldest."""
        self._put(vector)


class LateHashes(_Ring):
    """The newest 64-bit hashes. One thread at a time."""

    def __init__(self, size: int) -> None:
        self._hashes = np.zeros(size, dtype=np.uint64)
        super().__init__(self._hashes)

    def has_near(self, value: int, within: float) -> bool:
        """Whether one differs from ``value`` in at most ``within`` bits."""
        seen = self._hashes[: len(self)]
        return bool(len(seen)) and int(np.bitwise_count(seen ^ np.uint64(value)).min()) <= within

    def add(self, value: int) -> None:
        """Remember a hash in place of the oldest."""
        self._put(np.uint64(value))


class Late:
    """What was captured lately, by the policy's measure. One thread at a time."""

    def __init__(self, policy: Duplicates) -> None:
        self.policy = policy
        self._vectors: LateVectors | None = None
        self._hashes = LateHashes(policy.remember if policy.by == "dhash" else 1)

    def has_near(self, vector: NDArray[np.float32] | None, dhash: int | None) -> bool:
        """Whether something near was captured; never for what lacks the measure."""
        if self.policy.by == "dhash":
            return dhash is not None and self._hashes.has_near(dhash, self.policy.within)
        if vector is None or self._vectors is None or self._vectors.length != len(vector):
            return False
        return self._vectors.has_near(vector, self.policy.within)

    def add(self, vector: NDArray[np.float32] | None, dhash: int | None) -> None:
        """Remember a captured sample. Vectors of another length than before begin a new memory."""
        if self.policy.by == "dhash":
            if dhash is not None:
                self._hashes.add(dhash)
        elif vector is not None:
            if self._vectors is None or self._vectors.length != len(vector):
                self._vectors = LateVectors(self.policy.remember, len(vector))
            self._vectors.add(vector)
