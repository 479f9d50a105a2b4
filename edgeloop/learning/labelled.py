"""With what probability labelled samples came to be labelled: read from how often such samples are.

People are asked about audited samples first. Weighting by ``selection_probability`` alone then takes a hard input that
the audit drew for one that is always labelled, and counts it too little.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from edgeloop.learning.estimate import labelled_probability
from edgeloop.samples.dataset import DatasetVersion, Member
from edgeloop.samples.seen import accepted_key
from edgeloop.samples.service import Service
from edgeloop.samples.splits import split_of
from edgeloop.samples.table import Tables, one_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

_COLUMNS = ["sample_id", "group", "selected_by"]


class Shares(NamedTuple):
    """What part of the accepted samples is labelled."""

    audit: float
    """Of those that the audit drew."""
    rule: float
    """Of those that a rule chose."""


def labelling_chances(
    tables: Tables, service: Service, members: Sequence[Member], shares: Shares | None = None
) -> NDArray[np.float64]:
    """With what probability each of ``members`` was chosen and labelled, float64 [members].

    The share of labelled ones is that of members among all accepted samples of their splits, by whether the audit or
    a rule chose them, counted in the tables unless ``shares`` says it. All members are samples of nodes; imported ones
    are none of the field.
    """
    found = shares or _counted(tables, service, members)
    chosen = np.asarray([row["selection_probability"] for row in field_rows(tables, members)], dtype=np.float64)
    chances = labelled_probability(chosen, service.selection.audit, found.audit, found.rule)
    return np.where(chances > 0, chances, chosen)  # 0: the audit drew other shares when these were sent


def labelled_shares(dataset: DatasetVersion, members: Sequence[Member], looked: float) -> Shares | None:
    """:class:`Shares` by the counts of a dataset version; None where it has none.

    Args:
        dataset: that ``members`` are of.
        members: of one split, labelled and usable; those of a reference set are not counted.
        looked: the share of the split's labelled samples that they were drawn from, regardless of what they are.
    """
    if dataset.accepted is None or not members:
        return None
    kinds = Counter(m.selected_by == "audit" for m in members if m.selected_by != "reference")
    accepted = {kind: dataset.accepted.get(accepted_key(members[0].split, kind), 0) for kind in (True, False)}
    audit, rule = (min(1.0, kinds[k] / (looked * accepted[k])) if accepted[k] else 0.0 for k in (True, False))
    return Shares(audit, rule)


def field_rows(tables: Tables, members: Sequence[Member]) -> list[dict[str, Any]]:
    """``group`` and ``selection_probability`` of each member, read from the table where a member does not say."""
    lacking = [m.sample_id for m in members if m.group is None or m.chance is None]
    columns = ["sample_id", "selection_probability", "group"]
    rows = tables.read("samples", columns, where=one_of("sample_id", lacking)) if lacking else []
    known = {r["sample_id"]: r for r in rows}
    return [known.get(m.sample_id) or {"group": m.group, "selection_probability": m.chance} for m in members]


def _counted(tables: Tables, service: Service, members: Sequence[Member]) -> Shares:
    ids, splits = {m.sample_id for m in members}, {m.split for m in members}
    accepted = {r["sample_id"] for r in tables.read("verdicts", ["sample_id", "accepted"]) if r["accepted"]}
    found = {
        r["sample_id"]: r
        for r in tables.read("samples", _COLUMNS)
        if r["sample_id"] in accepted
        and r["selected_by"] != "reference"
        and split_of(r["group"], service.name) in splits
    }
    audited = [name in ids for name, r in found.items() if r["selected_by"] == "audit"]
    ruled = [name in ids for name, r in found.items() if r["selected_by"] != "audit"]
    return Shares(_share(audited), _share(ruled))


def _share(labelled: Sequence[bool]) -> float:
    return sum(labelled) / len(labelled) if labelled else 0.0
