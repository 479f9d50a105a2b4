"""What a round learns from: all new pool samples that its model can use, and a fair part of the earlier ones.

A sample without its raw input is of use only to the backbone that made its features. Those that cannot be used are
left out before anything is drawn, and counted, so that a round never says it learned from them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeloop.clients.objects import ObjectStore
from edgeloop.errors import BadInput
from edgeloop.learning.features import Space, lacking
from edgeloop.samples.dataset import DatasetVersion, Member, load_dataset, members_of
from edgeloop.samples.service import Service
from edgeloop.samples.table import Tables, not_empty, one_of


class NothingToLearn(BadInput):
    """A dataset version has no labelled pool samples, or none that the model can use."""


@dataclass(frozen=True)
class Lesson:
    """The samples that a candidate is fitted on."""

    members: list[Member]
    counts: dict[str, int]
    """``new`` since the champion's dataset, ``replay`` from it."""
    left_out: dict[str, int]
    """Pool samples that cannot be used, by the reason."""


def draw_lesson(
    store: ObjectStore,
    tables: Tables,
    service: Service,
    dataset: DatasetVersion,
    former: str | None,
    space: Space | None,
    seed: int,
) -> Lesson:
    """All usable new pool samples, and a uniform draw of the usable ones that the champion's dataset had (replay).

    Args:
        store: keeps dataset versions and features.
        tables: of the service.
        service: says how many samples are replayed.
        dataset: to learn from.
        former: name of the champion's dataset version, None without a champion.
        space: the features that the model learns from; None where only raw inputs will do.
        seed: makes the draw repeatable.

    Raises:
        NothingToLearn: no pool sample is left.
    """
    pool = [m for m in members_of(tables, service.name, dataset.tables) if m.split == "pool"]
    faults = unusable(store, tables, [m.sample_id for m in pool], space)
    left_out = dict(Counter(faults.values()))
    usable = [m for m in pool if m.sample_id not in faults]
    if not usable:
        raise NothingToLearn(_nothing(dataset, left_out))
    old = set() if former is None else old_members(store, tables, service.name, former)
    new = [m for m in usable if m.sample_id not in old]
    earlier = [m for m in usable if m.sample_id in old]
    if len(earlier) > service.trainer.replay:
        draw = np.random.default_rng(seed).choice(len(earlier), size=service.trainer.replay, replace=False)
        earlier = [earlier[i] for i in sorted(draw)]
    return Lesson(earlier + new, {"new": len(new), "replay": len(earlier)}, left_out)


def _nothing(dataset: DatasetVersion, left_out: dict[str, int]) -> str:
    if not left_out:
        return f"dataset {dataset.id} of {dataset.service} has no labelled pool samples: label some first"
    reasons = ", ".join(f"{count} have {reason}" for reason, count in sorted(left_out.items()))
    return (
        f"dataset {dataset.id} of {dataset.service} has no pool samples to learn from here ({reasons}):"
        " use mode head with the backbone that made the features, or send raw inputs (selection.payload: both)"
    )


def unusable(store: ObjectStore, tables: Tables, ids: Sequence[str], space: Space | None) -> dict[str, str]:
    """Why samples cannot be used, by id; those that can are not in it. Raw inputs are not read into memory."""
    raw = {r["sample_id"] for r in tables.read("samples", ["sample_id"], where=not_empty("payload"))}
    bare = [name for name in ids if name not in raw]
    rows = sample_rows(tables, bare) if bare else {}
    ordered = [rows[name] for name in bare]
    reasons = zip(bare, lacking(store, space, ordered), strict=True)
    return {name: reason for name, reason in reasons if reason is not None}


def old_members(store: ObjectStore, tables: Tables, service: str, dataset: str) -> set[str]:
    """Sample ids of an earlier dataset version."""
    return {m.sample_id for m in members_of(tables, service, load_dataset(store, service, dataset).tables)}


def sample_rows(tables: Tables, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Rows of the samples table by id, with payload and embedding."""
    columns = ["sample_id", "payload", "embedding", "backbone_digest", "selected_by", "captured_at", "extra"]
    return {r["sample_id"]: r for r in tables.read("samples", columns, where=one_of("sample_id", ids))}
