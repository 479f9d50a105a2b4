"""What a round learns from: all new pool samples that its model can use, and a fair part of the earlier ones.

A sample without its raw input is of use only to the backbone that made its features. Those that cannot be used are
left out, another earlier one is drawn in their place, and they are counted, so that a round never says it learned from
them. Earlier samples are drawn first and looked at then: a round looks at what it replays, however long the history.
Labels that contradict each other are left out too, and labels that some other model gave: who learns is told by people
and devices, and what the champion may add is made by ``edgeloop.learning.pseudo`` alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeloop.clients.objects import ObjectStore
from edgeloop.errors import BadInput
from edgeloop.learning.features import Space
from edgeloop.learning.labels.conflicts import CONTRADICTORY, claims_of, wrong_among
from edgeloop.learning.sample_features import lacking_samples
from edgeloop.samples.dataset import DatasetVersion, Member, Members, dataset_members, former_members
from edgeloop.samples.service import Service
from edgeloop.samples.table import Tables, one_of

if TYPE_CHECKING:
    from numpy.typing import NDArray


#: Why a sample is not learned from whose only label says that a model gave it: the key under which such are counted.
FOREIGN_PSEUDO = "only a pseudo-label from elsewhere"


class NothingToLearn(BadInput):
    """A dataset version has no labelled pool samples, or none that the model can use."""


@dataclass(frozen=True)
class Lesson:
    """The samples that a candidate is fitted on."""

    members: list[Member]
    counts: dict[str, int]
    """``new`` since the champion's dataset, ``replay`` from it, ``pseudo`` with a label that the champion gave."""
    left_out: dict[str, int]
    """Pool samples that cannot be used, by the reason: all new ones, and of the earlier ones those that were drawn."""
    weights: NDArray[np.float64] | None = None
    """What each member counts beside the others, float64 [members]; None if all count the same."""
    dataset_members: Members | None = None
    """Everybody in the dataset version; None where that is not known."""


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
    members = dataset_members(store, tables, dataset)
    pool = members.of("pool")
    told = pool.where(~pool.among("source", ["pseudo"]))
    left_out = Counter({FOREIGN_PSEUDO: len(pool) - len(told)})
    is_old = np.zeros(len(told), dtype=np.bool_)
    if former is not None:
        is_old = same_labels(told, former_members(store, tables, service.name, former))
    fresh, old = told.where(~is_old), told.where(is_old)
    order = np.arange(len(old))
    if len(old) > service.trainer.replay:
        order = np.random.default_rng(seed).permutation(len(old))
    drawn = first_usable(
        old.take(order), service.trainer.replay, lambda ids: unusable(store, tables, ids, space), besides=fresh.ids
    )
    left_out.update(drawn.faults.values())
    new = [m for m in fresh.listed() if m.sample_id not in drawn.faults]
    earlier = sorted(drawn.members.listed(), key=lambda m: m.sample_id)
    if not earlier and not new:
        raise NothingToLearn(_nothing(dataset, dict(+left_out)))
    wrong = contradicted(store, tables, service, [*earlier, *new])
    left_out[CONTRADICTORY] += len(wrong)
    earlier, new = ([m for m in part if m.sample_id not in wrong] for part in (earlier, new))
    if not earlier and not new:
        raise NothingToLearn(_nothing(dataset, dict(+left_out)))
    return Lesson(earlier + new, {"new": len(new), "replay": len(earlier)}, dict(+left_out), dataset_members=members)


def same_labels(members: Members, former: Members) -> NDArray[np.bool_]:
    """Who of ``members`` was among ``former`` with this label of this source, bool [members].

    A label that was corrected or confirmed since is news, however long its sample has been known.
    """
    import pyarrow.compute as pc

    now, before = (
        pc.binary_join_element_wise(*(some.table[name] for name in ("sample_id", "source", "label")), "\n")
        for some in (members, former)
    )
    return np.asarray(pc.is_in(now, value_set=before).to_numpy(), dtype=np.bool_)


@dataclass(frozen=True)
class Usable:
    """The first samples of an order that can be used."""

    members: Members
    faults: dict[str, str]
    """Why the others that were looked at cannot, by id."""
    looked: int
    """How far into the order it went."""


def first_usable(
    ordered: Members,
    most: int,
    faults_of: Callable[[Sequence[str]], Mapping[str, str]],
    besides: Sequence[str] = (),
) -> Usable:
    """The first ``most`` of ``ordered`` that can be used; no more are looked at than that takes.

    Args:
        ordered: the candidates.
        most: how many are wanted.
        faults_of: says why samples cannot be used, by id.
        besides: ids of samples that are asked about in the same breath; their faults are told with the others.
    """
    ids = ordered.ids
    faults: dict[str, str] = dict(faults_of([*besides, *ids[:most]]))
    looked = min(most, len(ids))
    fine = [place for place in range(looked) if ids[place] not in faults]
    while len(fine) < most and looked < len(ids):
        lacking = most - len(fine)
        some = range(looked, min(looked + max(2 * lacking, 64), len(ids)))
        found = faults_of(ids[some.start : some.stop])
        good = [place for place in some if ids[place] not in found][:lacking]
        looked = good[-1] + 1 if len(good) == lacking else some.stop
        faults |= {name: found[name] for name in ids[some.start : looked] if name in found}
        fine += good
    return Usable(ordered.take(np.asarray(fine, dtype=np.intp)), faults, looked)


def contradicted(store: ObjectStore, tables: Tables, service: Service, members: Sequence[Member]) -> set[str]:
    """Names of images whose labels contradict those of equal images among ``members``.

    Only images: equal rows of a table may have different answers, and teach how often.
    """
    if service.image is None:
        return set()
    return wrong_among(claims_of(store, tables, {m.sample_id: (m.label, m.source) for m in members}))


def _nothing(dataset: DatasetVersion, left_out: dict[str, int]) -> str:
    if not left_out:
        return f"dataset {dataset.id} of {dataset.service} has no labelled pool samples: label some first"
    reasons = ", ".join(f"{count} have {reason}" for reason, count in sorted(left_out.items()))
    return (
        f"dataset {dataset.id} of {dataset.service} has no pool samples to learn from here ({reasons}):"
        f" {_remedy(left_out)}"
    )


def _remedy(left_out: dict[str, int]) -> str:
    steps = {
        CONTRADICTORY: "answer again what  edgeloop label  asks as disputed",
        FOREIGN_PSEUDO: "label some samples",
    }
    found = [step for reason, step in steps.items() if reason in left_out]
    if set(left_out) - set(steps):
        found.append(
            "use mode head with the backbone that made the features, or send raw inputs (selection.payload: both)"
        )
    return ", and ".join(found)


def unusable(store: ObjectStore, tables: Tables, ids: Sequence[str], space: Space | None) -> dict[str, str]:
    """Why samples cannot be used, by id; those that can are not in it. A row is read once in its life."""
    return lacking_samples(store, tables, space, ids)


def old_members(store: ObjectStore, tables: Tables, service: str, dataset: str) -> set[str]:
    """Sample ids of an earlier dataset version."""
    return set(former_members(store, tables, service, dataset).ids)


def sample_rows(tables: Tables, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Rows of the samples table by id, with payload and embedding."""
    columns = ["sample_id", "payload", "embedding", "backbone_digest", "selected_by", "captured_at", "extra"]
    return {r["sample_id"]: r for r in tables.read("samples", columns, where=one_of("sample_id", ids))}
