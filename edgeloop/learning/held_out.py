"""Which part of the pool only says when a full training should stop.

Whole groups are held out, so near-duplicates lie on one side, by a hash of their name, so a group that a champion
never learned from is not learned from by its successors either and goes on telling the truth about them. Gate and
test are not touched: they judge a candidate once it is made.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from edgeloop.learning.full_config import Mask
from edgeloop.learning.leak import Leak
from edgeloop.samples.splits import split_of

#: With fewer images held out a loss says more of them than of the model: all are trained on.
FEWEST = 30


def held_out(service: str, groups: Sequence[str], truth: Sequence[str], share: float) -> Mask:
    """Which samples are held out, bool [samples].

    Every label that occurs stays in training: where all its groups were drawn, they go back. None are held out if
    fewer than ``FEWEST`` would be.

    Raises:
        Leak: a group is not of the pool.
    """
    _check_pool(service, groups)
    aside = {group for group in set(groups) if _place(service, group) < share}
    for label in sorted(set(truth)):
        mine = {group for group, named in zip(groups, truth, strict=True) if named == label}
        if mine <= aside:
            aside -= mine
    mask = np.asarray([group in aside for group in groups], dtype=np.bool_)
    return mask if mask.sum() >= FEWEST else np.zeros(len(groups), dtype=np.bool_)


def _check_pool(service: str, groups: Sequence[str]) -> None:
    leaked = sorted({group for group in set(groups) if split_of(group, service) != "pool"})
    if leaked:
        raise Leak(
            f"{len(leaked)} groups of {service}, {leaked[0]} among them, judge models and were to train one:"
            " train on the pool alone"
        )


def _place(service: str, group: str) -> float:
    """Where a group stands in [0, 1), for ever; another draw than the one that made it the pool's."""
    return int.from_bytes(hashlib.sha256(f"held out\n{service}\n{group}".encode()).digest()[:8], "big") / 2**64
