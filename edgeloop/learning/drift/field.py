"""How right the fleet's answers were, over time: from what people said of samples that nobody chose for being easy.

Only samples of the gate and test splits count. Of the pool, people are asked about what a model finds hard.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
from pydantic import BaseModel, ConfigDict

from edgeloop.learning.drift.reading import AUDIT, IMPORTED, Versions
from edgeloop.learning.estimate import Estimate, audit_accuracy, labelled_probability, weighted_accuracy
from edgeloop.samples.dataset import members_of
from edgeloop.samples.service import Service
from edgeloop.samples.splits import split_of
from edgeloop.samples.table import Tables

#: Labelled answers of a period, at least, and periods, at most.
LEAST_PERIOD, MOST_PERIODS = 30, 10
_COLUMNS = ["sample_id", "group", "captured_at", "selected_by", "selection_probability", "model_digest", "prediction"]


class Period(BaseModel):
    """Accuracy of the answers that the fleet gave in a stretch of time, whichever model gave them."""

    model_config = ConfigDict(frozen=True)

    start: datetime
    end: datetime
    audit: Estimate | None = None
    """From the audit slice, the first answer of each group: frames of one session tell about the same."""
    weighted: Estimate | None = None
    """From all labelled samples, each by one over the probability that it was chosen and labelled."""


@dataclass(frozen=True)
class Answer:
    """An answer of a node that may judge: of a gate or test sample, not imported."""

    sample_id: str
    group: str
    captured_at: datetime
    is_audit: bool
    chance: float
    """With which the sample was chosen."""
    release: str
    right: bool | None
    """None without a label of a trusted source."""


def answers(tables: Tables, service: Service, versions: Versions) -> list[Answer]:
    """Answers to accepted samples at these table versions, in the order of capture; none for a regressor."""
    if not service.is_classifier or versions.get("samples") is None or versions.get("verdicts") is None:
        return []
    members = members_of(
        tables, service.name, {name: versions.get(name) for name in ("samples", "labels", "verdicts", "holds")}
    )
    labels = {m.sample_id: m.label for m in members if m.source in service.gate.trust}
    verdicts = tables.read("verdicts", ["sample_id", "accepted"], versions["verdicts"])
    accepted = {r["sample_id"] for r in verdicts if r["accepted"]}
    rows = tables.read("samples", _COLUMNS, versions["samples"])
    found = [
        Answer(
            sample_id=r["sample_id"],
            group=r["group"],
            captured_at=r["captured_at"],
            is_audit=r["selected_by"] == AUDIT,
            chance=r["selection_probability"],
            release=r["model_digest"],
            right=labels[r["sample_id"]] == r["prediction"] if r["sample_id"] in labels else None,
        )
        for r in rows
        if r["sample_id"] in accepted and r["selected_by"] != IMPORTED and split_of(r["group"], service.name) != "pool"
    ]
    return sorted(found, key=lambda a: (a.captured_at, a.sample_id))


def newly_judged(now: Sequence[Answer], before: Sequence[Answer], release: str | None) -> list[Answer]:
    """Audited answers of ``release`` that had no label ``before``: the first one of each group."""
    judged = {a.group for a in before if a.right is not None}
    found: dict[str, Answer] = {}
    for one in now:
        if one.is_audit and one.right is not None and one.release == release and one.group not in judged:
            found.setdefault(one.group, one)
    return list(found.values())


def periods_of(found: Sequence[Answer], audit: float, seed: int) -> tuple[Period, ...]:
    """Estimates over stretches of equally many labelled answers, the oldest first.

    Args:
        found: see :func:`answers`.
        audit: share of all inputs that the audit draws.
        seed: makes the intervals repeatable.
    """
    labelled = [a for a in found if a.right is not None]
    count = min(MOST_PERIODS, len(labelled) // LEAST_PERIOD)
    if count == 0:
        return ()
    chances = labelled_probability(
        np.asarray([a.chance for a in labelled]),
        audit,
        of_audit=_share_labelled([a for a in found if a.is_audit]),
        of_rules=_share_labelled([a for a in found if not a.is_audit]),
    )
    parts = np.array_split(np.arange(len(labelled)), count)
    return tuple(_period([labelled[i] for i in part], chances[part], seed) for part in parts)


def _share_labelled(some: Sequence[Answer]) -> float:
    return sum(a.right is not None for a in some) / len(some) if some else 0.0


def _period(some: Sequence[Answer], chances: np.ndarray[tuple[int], np.dtype[np.float64]], seed: int) -> Period:
    right = np.asarray([bool(a.right) for a in some])
    first = {a.group: place for place, a in reversed(list(enumerate(some))) if a.is_audit}
    audited = np.asarray(sorted(first.values()), dtype=np.int64)
    usable = chances > 0
    return Period(
        start=some[0].captured_at,
        end=some[-1].captured_at,
        audit=audit_accuracy(right[audited]) if len(audited) else None,
        weighted=weighted_accuracy(
            right[usable], chances[usable], groups=[a.group for a, u in zip(some, usable, strict=True) if u], seed=seed
        )
        if usable.any()
        else None,
    )
