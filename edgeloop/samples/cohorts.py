"""A node's place in a rollout: both the cloud, which counts, and the node, which obeys, compute it alike."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

#: Above every place: the whole ring.
EVERYONE = "f" * 16
#: Below every place: nobody.
NOBODY = "0" * 16


def place(salt: str, node: str) -> str:
    """Place of ``node`` in the rollout ``salt``: 16 hex digits, uniform, unrelated between rollouts."""
    return hashlib.sha256(f"{salt}\n{node}".encode()).hexdigest()[:16]


def switches(salt: str, node: str, below: str) -> bool:
    """Whether ``node`` is of the batches so far."""
    return below == EVERYONE or place(salt, node) < below


def bound(salt: str, nodes: Iterable[str], count: int) -> str:
    """The bound below which ``count`` of ``nodes`` lie; EVERYONE when that is all of them."""
    places = sorted(place(salt, node) for node in nodes)
    if count >= len(places):
        return EVERYONE
    return NOBODY if count <= 0 else places[count]
