"""Score a candidate and the champion on the same locked samples, with the exported models that nodes would run.

The gate sees gate samples only. Test samples are scored beside them for people to read; no decision looks at them.
Which of them answer is in ``edgeloop.learning.predictions``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from pydantic import BaseModel

from edgeloop.clients.objects import ObjectStore
from edgeloop.learning.estimate import Estimate
from edgeloop.learning.gate import Decision, decide, score
from edgeloop.learning.gate_budgets import MOST_TIMED
from edgeloop.learning.gate_models import (
    DamagedCandidate,
    DamagedModel,
    Pair,
    encode_truth,
    load_pair,
)
from edgeloop.learning.kept_inputs import kept_inputs
from edgeloop.learning.labelled import labelled_shares
from edgeloop.learning.measure import (
    AUDIT,
    DEPLOYED,
    export_agreement,
    field_estimates,
    time_models,
)
from edgeloop.learning.predictions import FOREIGN_LABEL, Predictions, predict, predict_split
from edgeloop.learning.train import Base, Candidate, candidate_key
from edgeloop.samples.dataset import DatasetVersion, Member, dataset_members, former_members
from edgeloop.samples.releases import blob_key
from edgeloop.samples.service import Service
from edgeloop.samples.table import Tables
from edgeloop.store import FleetStore

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "DEPLOYED",
    "FOREIGN_LABEL",
    "Evaluation",
    "Predictions",
    "TestScore",
    "encode_truth",
    "evaluate",
    "predict",
    "predict_split",
    "unjudged",
]


class TestScore(BaseModel):
    """The metric on the locked test split, for people."""

    samples: int
    candidate: float | None
    champion: float | None


class Evaluation(BaseModel):
    """The gate's decision on a candidate, and both models' metric on the test split."""

    key: str
    metric: str
    decision: Decision
    test: TestScore
    left_out: dict[str, dict[str, int]] = {}
    """Labelled samples that could not be used, by split (``pool``, ``gate``, ``test``) and reason."""
    estimates: dict[str, Estimate] = {}
    """Accuracy in the field, by the model and the samples that it is estimated from; empty for regressors."""
    damage: str | None = None
    """Why there was nothing to judge: the champion or the candidate cannot be loaded."""
    drawn_from: dict[str, int] = {}
    """Samples with trusted labels by split, where there are more than ``gate.max_samples`` and those were drawn."""


def evaluate(
    store: ObjectStore,
    tables: Tables,
    service: Service,
    dataset: DatasetVersion,
    candidate: Candidate,
    fleet: FleetStore | None = None,
) -> Evaluation:
    """Judge ``candidate`` against the champion that it was made from.

    With ``fleet``, the decision is counted on each gate sample that takes part, whatever becomes of it: scores were
    seen. Samples that have made ``gate.max_reuse`` decisions only refuse. Where one of the two models cannot be loaded
    the decision is inconclusive, ``damage`` says why, and nothing is counted; a candidate of damaged bytes is set aside
    for the next round to make again.
    """
    try:
        pair = load_pair(store, service, candidate)
        return _judged(store, tables, service, dataset, candidate, pair, fleet)
    except DamagedModel as error:
        if isinstance(error, DamagedCandidate) and error.blob:
            _set_aside(store, candidate, error.blob)
        return unjudged(service, candidate.key, str(error))


def unjudged(service: Service, key: str, damage: str) -> Evaluation:
    """The inconclusive evaluation of a round in which there was nothing to judge."""
    return Evaluation(
        key=key,
        metric=service.metric,
        decision=Decision(verdict="inconclusive", reason=damage, samples=0),
        test=TestScore(samples=0, candidate=None, champion=None),
        damage=damage,
    )


def _set_aside(store: ObjectStore, candidate: Candidate, blob: str) -> None:
    """Free the names of a damaged blob and of the candidate's record: what is made anew can be written there."""
    store.delete(candidate_key(candidate.service, candidate.key))
    if store.size(blob_key(blob)) is not None:
        store.move(blob_key(blob), f"quarantine/{blob_key(blob)}")


def _judged(
    store: ObjectStore,
    tables: Tables,
    service: Service,
    dataset: DatasetVersion,
    candidate: Candidate,
    pair: Pair,
    fleet: FleetStore | None,
) -> Evaluation:
    before = fleet.gate_uses(service.name, candidate.key) if fleet else {}
    old = {name for name, uses in before.items() if uses >= service.gate.max_reuse}
    members = dataset_members(store, tables, dataset)
    gate = predict_split(store, tables, service, dataset, candidate, "gate", pair, members, old)
    test = predict_split(store, tables, service, dataset, candidate, "test", pair, members)
    ids = [m.sample_id for m in gate.members]
    inputs = kept_inputs(store, tables, ids[:MOST_TIMED])
    timed = time_models(pair, inputs)
    said = dict(zip(inputs, timed.answers, strict=True)) if timed else {}
    agreed = export_agreement(store, tables, service, candidate, pair, ids, gate.candidate, said)
    worn, uses = _worn(fleet, service, candidate, ids, before)
    decision = decide(
        service.gate,
        service.metric,
        gate.truth,
        gate.candidate,
        gate.champion,
        _slices(store, tables, service, gate.members, candidate.base),
        release_bytes=sum(store.size(blob_key(d)) or 0 for r, d in candidate.layers.items() if r in DEPLOYED),
        seed=candidate.seed,
        latency=timed.latency if timed else None,
        agreed=agreed,
        uses=uses,
        worn=worn,
    )
    left_out = {"pool": candidate.left_out, "gate": gate.left_out, "test": test.left_out}
    return Evaluation(
        key=candidate.key,
        metric=service.metric,
        decision=_explained(decision, gate.left_out),
        test=_test_score(service, test),
        left_out={split: reasons for split, reasons in left_out.items() if reasons},
        estimates=_estimates(tables, service, dataset, gate, candidate.seed),
        drawn_from={split: one.of for split, one in (("gate", gate), ("test", test)) if one.looked < one.of},
    )


def _worn(
    fleet: FleetStore | None, service: Service, candidate: Candidate, ids: list[str], before: Mapping[str, int]
) -> tuple[NDArray[np.bool_], int | None]:
    """Which gate samples are worn, [samples], and the most uses of the others after this decision, which is counted.

    Nothing is counted where too few are fresh: then they decide nothing.
    """
    uses = np.asarray([before.get(name, 0) for name in ids], dtype=np.int64)
    worn = uses >= service.gate.max_reuse
    fresh = [name for name, old in zip(ids, worn, strict=True) if not old]
    if fleet is None or len(fresh) < service.gate.min_samples:
        return worn, None
    fleet.use_gate(service.name, candidate.key, fresh)
    return worn, int(uses[~worn].max()) + 1


def _explained(decision: Decision, left_out: dict[str, int]) -> Decision:
    """An inconclusive decision says which labelled samples could not take part."""
    if decision.verdict != "inconclusive" or not left_out:
        return decision
    more = ", ".join(f"{count} with {reason}" for reason, count in sorted(left_out.items()))
    return decision.model_copy(update={"reason": f"{decision.reason} (left out: {more})"})


def _estimates(
    tables: Tables, service: Service, dataset: DatasetVersion, gate: Predictions, seed: int
) -> dict[str, Estimate]:
    if not service.is_classifier or not gate.members:
        return {}
    answers = {"candidate": gate.candidate} | ({} if gate.champion is None else {"champion": gate.champion})
    right = {name: found == gate.truth for name, found in answers.items()}
    shares = labelled_shares(dataset, gate.members, gate.looked / gate.of)
    return field_estimates(tables, gate.members, right, seed, service, shares)


def _test_score(service: Service, test: Predictions) -> TestScore:
    n = len(test.members)
    if n == 0:
        return TestScore(samples=0, candidate=None, champion=None)
    return TestScore(
        samples=n,
        candidate=score(service.metric, test.truth, test.candidate),
        champion=None if test.champion is None else score(service.metric, test.truth, test.champion),
    )


def _slices(
    store: ObjectStore, tables: Tables, service: Service, members: list[Member], base: Base | None
) -> dict[str, NDArray[np.bool_]]:
    """``old``: what the champion's dataset had; ``new``: the rest; ``audit``: chosen regardless of confidence."""
    audit = np.asarray([m.selected_by in AUDIT for m in members], dtype=bool)
    slices = {"audit": audit, "hard": ~audit}
    if base is not None:
        before = former_members(store, tables, service.name, base.dataset)
        known = before.where(before.among("sample_id", [m.sample_id for m in members])).ids
        old = np.isin([m.sample_id for m in members], known)
        slices |= {"old": old, "new": ~old}
    return slices
