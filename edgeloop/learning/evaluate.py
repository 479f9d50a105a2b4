"""Score a candidate and the champion on the same locked samples, with the exported models that nodes would run.

The gate sees gate samples only. Test samples are scored beside them for people to read; no decision looks at them.
Samples that one of the two models cannot answer (their raw input stayed at the node and their features are another
backbone's) judge neither; they are counted.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import BaseModel

from edgeloop.clients.models import Backbone, LinearHead, OnnxModel
from edgeloop.clients.objects import ObjectStore
from edgeloop.learning.estimate import Estimate
from edgeloop.learning.features import KnownSpace, features_of
from edgeloop.learning.gate import Decision, decide, score
from edgeloop.learning.gate_budgets import agreement
from edgeloop.learning.measure import AUDIT, DEPLOYED, field_estimates, gate_set, time_models, trained_answers
from edgeloop.learning.pool import old_members, sample_rows, unusable
from edgeloop.learning.train import Base, Candidate
from edgeloop.samples.dataset import DatasetVersion, Member, members_of
from edgeloop.samples.releases import blob_key
from edgeloop.samples.service import Service
from edgeloop.samples.table import Tables
from edgeloop.store import FleetStore

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["DEPLOYED", "Evaluation", "Predictions", "TestScore", "encode_truth", "evaluate", "predict", "predict_split"]


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


@dataclass(frozen=True)
class Predictions:
    """Right answers and both models' answers on one split: float64 [samples], labels as their numbers."""

    members: list[Member]
    truth: NDArray[np.float64]
    candidate: NDArray[np.float64]
    champion: NDArray[np.float64] | None
    left_out: dict[str, int]
    """Samples of the split that one of the models cannot answer, by the reason; they are no members."""


def predict(
    store: ObjectStore, service: Service, layers: dict[str, str], rows: list[dict[str, Any]]
) -> NDArray[np.float64]:
    """Answers of a packaged model to sample rows: float64 [rows]; the number of the label, or the value.

    Raises:
        MissingFeatures: a row has no raw input, and no features that this model can take.
    """
    if not rows:
        return np.zeros(0)
    if service.kind == "image-classifier":
        backbone = Backbone(store.get(blob_key(layers["backbone"])), layers["backbone"])
        head = LinearHead.from_bytes(store.get(blob_key(layers["head"])))
        order = np.asarray([(service.labels or []).index(label) for label in head.labels])
        best = head.probabilities(features_of(store, backbone, rows)).argmax(axis=1)
        return np.asarray(order[best], dtype=np.float64)
    model = OnnxModel(store.get(blob_key(layers["model"])), service.feature_names, service.labels)
    answers = [model.predict(r["payload"]).prediction for r in rows]
    return encode_truth(service, answers)


def encode_truth(service: Service, labels: list[str]) -> NDArray[np.float64]:
    """Labels as numbers: their place in the service's list, or their value. float64 [labels]."""
    if service.is_classifier:
        known = service.labels or []
        return np.asarray([known.index(label) for label in labels], dtype=np.float64)
    return np.asarray([float(label) for label in labels], dtype=np.float64)


def predict_split(
    store: ObjectStore,
    tables: Tables,
    service: Service,
    dataset: DatasetVersion,
    candidate: Candidate,
    split: Literal["gate", "test"],
) -> Predictions:
    """Both models' answers on one locked split of a dataset version, by labels of trusted sources."""
    members = members_of(tables, service.name, dataset.tables)
    trusted = [m for m in members if m.split == split and m.source in service.gate.trust]
    base = candidate.base
    faults = _unanswerable(store, tables, trusted, [candidate.layers, *([base.layers] if base else [])])
    chosen = [m for m in trusted if m.sample_id not in faults]
    rows = sample_rows(tables, [m.sample_id for m in chosen])
    ordered = [rows[m.sample_id] for m in chosen]
    return Predictions(
        members=chosen,
        truth=encode_truth(service, [m.label for m in chosen]),
        candidate=predict(store, service, candidate.layers, ordered),
        champion=predict(store, service, base.layers, ordered) if base else None,
        left_out=dict(Counter(faults.values())),
    )


def _unanswerable(
    store: ObjectStore, tables: Tables, members: list[Member], models: list[dict[str, str]]
) -> dict[str, str]:
    """Why samples cannot be answered by all of ``models`` (layers by role), by sample id."""
    faults: dict[str, str] = {}
    for space in dict.fromkeys(_space_of(store, layers) for layers in models):
        faults |= unusable(store, tables, [m.sample_id for m in members], space)
    return faults


def _space_of(store: ObjectStore, layers: dict[str, str]) -> KnownSpace | None:
    """The features that a packaged model takes; None where it takes raw inputs only."""
    if "head" not in layers:
        return None
    head = LinearHead.from_bytes(store.get(blob_key(layers["head"])))
    return KnownSpace(layers["backbone"], len(head.weights))


def evaluate(
    store: ObjectStore,
    tables: Tables,
    service: Service,
    dataset: DatasetVersion,
    candidate: Candidate,
    fleet: FleetStore | None = None,
) -> Evaluation:
    """Judge ``candidate`` against the champion that it was made from.

    With ``fleet``, the decision is counted as a use of its gate samples, whatever becomes of it: scores were seen.
    """
    gate = predict_split(store, tables, service, dataset, candidate, "gate")
    test = predict_split(store, tables, service, dataset, candidate, "test")
    base = candidate.base.layers if candidate.base else None
    ids = [m.sample_id for m in gate.members]
    trained = trained_answers(store, tables, service, candidate.layers, ids)
    decision = decide(
        service.gate,
        service.metric,
        gate.truth,
        gate.candidate,
        gate.champion,
        _slices(store, tables, service, gate.members, candidate.base),
        release_bytes=sum(store.size(blob_key(d)) or 0 for r, d in candidate.layers.items() if r in DEPLOYED),
        seed=candidate.seed,
        latency=time_models(store, tables, service, candidate.layers, base, ids),
        agreed=None if trained is None else agreement(service.metric, gate.candidate, encode_truth(service, trained)),
        uses=fleet.use_gate(service.name, gate_set(gate.members), candidate.key) if fleet and gate.members else None,
    )
    left_out = {"pool": candidate.left_out, "gate": gate.left_out, "test": test.left_out}
    return Evaluation(
        key=candidate.key,
        metric=service.metric,
        decision=_explained(decision, gate.left_out),
        test=_test_score(service, test),
        left_out={split: reasons for split, reasons in left_out.items() if reasons},
        estimates=_estimates(tables, service, gate, candidate.seed),
    )


def _explained(decision: Decision, left_out: dict[str, int]) -> Decision:
    """An inconclusive decision says which labelled samples could not take part."""
    if decision.verdict != "inconclusive" or not left_out:
        return decision
    more = ", ".join(f"{count} with {reason}" for reason, count in sorted(left_out.items()))
    return decision.model_copy(update={"reason": f"{decision.reason} (left out: {more})"})


def _estimates(tables: Tables, service: Service, gate: Predictions, seed: int) -> dict[str, Estimate]:
    if not service.is_classifier or not gate.members:
        return {}
    answers = {"candidate": gate.candidate} | ({} if gate.champion is None else {"champion": gate.champion})
    right = {name: found == gate.truth for name, found in answers.items()}
    return field_estimates(tables, gate.members, right, seed)


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
        before = old_members(store, tables, service.name, base.dataset)
        old = np.asarray([m.sample_id in before for m in members], dtype=bool)
        slices |= {"old": old, "new": ~old}
    return slices
