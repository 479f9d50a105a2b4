"""Near-duplicates on two sides of the split: the photo that came later is set aside, the earlier one stays.

A group goes to pool, gate or test by a hash of its name, and nodes name it by the digest of the file. The same scene,
encoded or cropped once more, has another digest, so it may learn what its double judges. Nothing moves from side to
side, since a sample that once trained can never judge: the double is refused instead, with the reason.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from edgeloop.samples.likeness import Miniature, looks, miniature
from edgeloop.samples.segments import to_row
from edgeloop.samples.service import Service
from edgeloop.samples.splits import split_of
from edgeloop.samples.table import Tables

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


def doubles(tables: Tables, service: Service, rows: Sequence[dict[str, Any]]) -> dict[str, str]:
    """Which samples are near-duplicates of one on another side, by id with the reason; the rest are remembered.

    Args:
        tables: know the photos that were accepted before.
        service: says how alike is too alike.
        rows: sound samples, with the decoded photo in ``_decoded``; those without one are not compared.
    """
    least = service.gate.near_duplicates
    shown = sorted((r for r in rows if "_decoded" in r), key=lambda r: str(r["sample_id"]))
    if service.image is None or least is None or not shown:
        return {}
    own = {r["sample_id"] for r in shown}
    known = [r for r in tables.read("miniatures", ["sample_id", "group", "miniature"]) if r["sample_id"] not in own]
    fresh = [Miniature(sample_id=r["sample_id"], group=r["group"], miniature=miniature(r["_decoded"])) for r in shown]
    names = [str(r["sample_id"]) for r in known] + [m.sample_id for m in fresh]
    sides = np.asarray([split_of(r["group"], service.name) for r in known])
    sides = np.concatenate([sides, [split_of(m.group, service.name) for m in fresh]])
    vectors = looks([r["miniature"] for r in known] + [m.miniature for m in fresh])
    faults = _parted(names, sides, vectors, len(known), least)
    kept = [to_row(m) for m in fresh if m.sample_id not in faults]
    tables.merge("miniatures", kept, Miniature)
    return faults


def _parted(
    names: list[str], sides: NDArray[np.str_], vectors: NDArray[np.float32], known: int, least: float
) -> dict[str, str]:
    """Which from place ``known`` on look like an earlier one, itself not set aside, on another side."""
    faults: dict[str, str] = {}
    stays = np.ones(len(names), dtype=bool)
    for place in range(known, len(names)):
        likeness = vectors[:place] @ vectors[place]
        other = stays[:place] & (sides[:place] != sides[place])
        near = np.flatnonzero(other & (likeness >= least))
        if len(near):
            stays[place] = False
            double = int(near[likeness[near].argmax()])
            faults[names[place]] = (
                f"near-duplicate of {names[double]} ({likeness[double]:.3f} alike), which is in {sides[double]}"
                f" while this one would be in {sides[place]}"
            )
    return faults
