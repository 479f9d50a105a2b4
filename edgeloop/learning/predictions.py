"""What both models of a round answer to the samples that judge them.

Samples that one of the two models cannot answer (their raw input stayed at the node and their features are another
backbone's) judge neither; they are counted. Of very many samples a part judges, drawn once for all by their names: the
cost of a decision follows what it needs, not all that was ever labelled.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from edgeloop.clients.objects import ObjectStore
from edgeloop.learning.gate_models import Pair, answers, encode_truth, load_packaged, load_pair, sample_answers
from edgeloop.learning.pool import Usable, first_usable, unusable
from edgeloop.learning.train import Candidate
from edgeloop.samples.dataset import DatasetVersion, Member, Members, dataset_members
from edgeloop.samples.service import Service
from edgeloop.samples.table import Tables

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Why a labelled sample judges nothing where its label was taken out of the service since.
FOREIGN_LABEL = "a label that the service does not take"


@dataclass(frozen=True)
class Predictions:
    """Right answers and both models' answers on one split: float64 [samples], labels as their numbers."""

    members: list[Member]
    truth: NDArray[np.float64]
    candidate: NDArray[np.float64]
    champion: NDArray[np.float64] | None
    left_out: dict[str, int]
    """Samples of the split that one of the models cannot answer, by the reason; they are no members."""
    looked: int = 0
    """Samples with trusted labels that were looked at, in a fixed order, and of how many."""
    of: int = 0


def predict(
    store: ObjectStore, service: Service, layers: dict[str, str], rows: list[dict[str, Any]]
) -> NDArray[np.float64]:
    """Answers of a packaged model to sample rows: float64 [rows]; the number of the label, or the value.

    Raises:
        MissingFeatures: a row has no raw input, and no features that this model can take.
        DamagedBlob, UnloadableModel: the model cannot be loaded.
    """
    return answers(store, service, load_packaged(store, service, layers), rows) if rows else np.zeros(0)


def predict_split(
    store: ObjectStore,
    tables: Tables,
    service: Service,
    dataset: DatasetVersion,
    candidate: Candidate,
    split: Literal["gate", "test"],
    pair: Pair | None = None,
    members: Members | None = None,
    worn: Collection[str] = (),
) -> Predictions:
    """Both models' answers on one locked split of a dataset version, by labels of trusted sources.

    Of more than ``gate.max_samples`` the first of a fixed order answer, so that the same ones do from round to round;
    ``worn`` ones (ids) come last. ``members`` are those of the version, where the caller knows them.

    Raises:
        DamagedChampion, DamagedCandidate: one cannot be loaded; not with a ``pair`` of loaded models.
    """
    loaded = pair or load_pair(store, service, candidate)
    known = dataset_members(store, tables, dataset) if members is None else members
    trusted = known.of(split)
    trusted = trusted.where(trusted.among("source", service.gate.trust))
    foreign = [label for label in set(trusted.column("label")) if service.label_fault(label)]
    named = trusted.where(~trusted.among("label", foreign)) if foreign else trusted
    drawn = _drawn(store, tables, named, loaded, service.gate.max_samples, worn)
    chosen = drawn.members.listed()
    ids = [m.sample_id for m in chosen]
    models = [loaded.candidate, *([loaded.champion] if loaded.champion else [])]
    found = sample_answers(store, tables, service, models, ids)
    left_out = Counter(drawn.faults.values())
    left_out[FOREIGN_LABEL] += len(trusted) - len(named)
    return Predictions(
        members=chosen,
        truth=encode_truth(service, [m.label for m in chosen]),
        candidate=found[0],
        champion=found[1] if loaded.champion else None,
        left_out=dict(+left_out),
        looked=drawn.looked,
        of=len(named),
    )


def _drawn(
    store: ObjectStore, tables: Tables, members: Members, pair: Pair, most: int | None, worn: Collection[str]
) -> Usable:
    """Those of ``members`` that answer, by id: all that both models can, or ``most`` of them."""
    order = np.arange(len(members))
    if most is not None and len(members) > most:
        order = np.lexsort((members.ranks(), members.among("sample_id", worn)))
    ordered = members.take(order)
    found = first_usable(ordered, most or len(members), lambda ids: _unanswerable(store, tables, ids, pair))
    return replace(found, members=found.members.by_id())


def _unanswerable(store: ObjectStore, tables: Tables, ids: Sequence[str], pair: Pair) -> dict[str, str]:
    """Why samples cannot be answered by both models, by sample id."""
    faults: dict[str, str] = {}
    models = [pair.candidate, *([pair.champion] if pair.champion else [])]
    for space in dict.fromkeys(model.space for model in models):
        faults |= unusable(store, tables, ids, space)
    return faults
