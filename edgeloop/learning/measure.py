"""What the gate needs to know of a candidate beside its answers: time, agreement, what judges it, and the field.

Read from the store and the tables here, so that the decision itself stays a pure function.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from edgeloop.clients.models import UnloadableModel
from edgeloop.clients.objects import ObjectStore
from edgeloop.learning.blobs import sound_blob
from edgeloop.learning.estimate import Estimate, audit_accuracy, weighted_accuracy
from edgeloop.learning.gate_budgets import Agreement, Timed, agreement, measure_latency
from edgeloop.learning.gate_keras import keras_features
from edgeloop.learning.gate_models import Packaged, Pair, candidate_damage, encode_truth, of_features
from edgeloop.learning.labelled import Shares, field_rows, labelling_chances
from edgeloop.learning.pool import sample_rows
from edgeloop.learning.train import Candidate
from edgeloop.samples.dataset import Member
from edgeloop.samples.payloads import decode_features, decode_image
from edgeloop.samples.service import Service
from edgeloop.samples.table import Tables

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Layers that go to nodes; the others stay in the registry.
DEPLOYED = frozenset({"backbone", "head", "model"})
#: Raw inputs that the Keras backbone of a full training answers at most.
MOST_COMPARED = 200
#: ``selected_by`` of samples that were drawn regardless of what a model said of them.
AUDIT = frozenset({"audit", "reference"})


def raw_inputs(tables: Tables, ids: Sequence[str], most: int) -> dict[str, bytes]:
    """Raw inputs of the first ``most`` gate samples, by id; those that stayed at their node are left out."""
    rows = sample_rows(tables, ids[:most])
    return {name: rows[name]["payload"] for name in ids[:most] if rows[name]["payload"]}


def time_models(pair: Pair, inputs: Mapping[str, bytes]) -> Timed | None:
    """Time both models on raw inputs of gate samples; None where all stayed at the node."""
    champion = None if pair.champion is None else pair.champion.model
    return measure_latency(pair.candidate.model, champion, list(inputs.values()))


def export_agreement(
    store: ObjectStore,
    tables: Tables,
    service: Service,
    candidate: Candidate,
    pair: Pair,
    ids: Sequence[str],
    answers: NDArray[np.float64],
    timed: Mapping[str, str],
) -> Agreement | None:
    """Agreement of the exported model with what was trained; None where no sample has what that takes.

    A pipeline answers all gate samples. Of an image model, a head is kept as it was fitted, so what may differ is the
    features: those that it was fitted on came from a cache or a node, and the export makes its own from the raw input.
    After ``full`` the Keras backbone makes them.

    Args:
        store: has the pipeline, and the Keras backbone.
        tables: has the inputs.
        service: that the model is for.
        candidate: says how it was made.
        pair: has the loaded model.
        ids: the gate samples.
        answers: of the exported model to them, float64 [samples].
        timed: what it answered to raw inputs, by sample.

    Raises:
        DamagedCandidate: the pipeline or the Keras backbone does not load.
    """
    place = {name: number for number, name in enumerate(ids)}
    if "pipeline" in candidate.layers:
        trained = encode_truth(service, _pipeline_answers(store, tables, service, candidate, ids)) if ids else answers
        return agreement(service.metric, answers, trained)
    if pair.candidate.head is None:
        return None
    if candidate.mode == "full" and "keras" in candidate.layers:
        images = raw_inputs(tables, ids, MOST_COMPARED)
        exported = answers[[place[name] for name in images]]
        trained = _keras_answers(store, service, candidate, pair.candidate, list(images.values()))
        return agreement(service.metric, exported, trained, "keras")
    said = encode_truth(service, list(timed.values()))
    return agreement(service.metric, said, answers[[place[name] for name in timed]], "features")


def _pipeline_answers(
    store: ObjectStore, tables: Tables, service: Service, candidate: Candidate, ids: Sequence[str]
) -> list[str]:
    """Answers of the scikit-learn pipeline that a model was exported from."""
    rows = sample_rows(tables, ids)
    values = np.stack([decode_features(rows[name]["payload"], service.feature_names) for name in ids])
    with candidate_damage(service, candidate):
        content = sound_blob(store, candidate.layers["pipeline"])
        try:
            estimator = pickle.loads(content)  # noqa: S301 (written by our own trainer, under its digest)
        except Exception as error:  # unpickling raises whatever the classes inside raise
            raise UnloadableModel(f"its pipeline of {len(content)} bytes does not load ({error})") from error
    return [str(answer) for answer in estimator.predict(values)]


def _keras_answers(
    store: ObjectStore, service: Service, candidate: Candidate, packaged: Packaged, payloads: Sequence[bytes]
) -> NDArray[np.float64]:
    """Answers of the head to the features of the Keras backbone, float64 [payloads]."""
    if packaged.backbone is None or packaged.head is None or not payloads:
        return np.zeros(0)
    with candidate_damage(service, candidate):
        content = sound_blob(store, candidate.layers["keras"])
    images = np.stack([decode_image(payload, packaged.backbone.size) for payload in payloads])
    return of_features(service, packaged.head, keras_features(content, images))


def field_estimates(
    tables: Tables,
    members: Sequence[Member],
    right: Mapping[str, NDArray[np.bool_]],
    seed: int,
    service: Service | None = None,
    shares: Shares | None = None,
) -> dict[str, Estimate]:
    """Accuracy over all inputs of the fleet, from the audit slice and from all of ``members`` by weight.

    Args:
        tables: knows the probability and the group of each sample.
        members: labelled samples; those of a reference set say nothing of the field and are left out.
        right: whether each answer is right, [members], by the name of the model.
        seed: makes the intervals repeatable.
        service: that they are of; without it, everything that was sent is taken to be labelled.
        shares: what part of the accepted samples is labelled; counted in the tables if None.
    """
    field = np.asarray([m.selected_by != "reference" for m in members], dtype=bool)
    audit = np.asarray([m.selected_by == "audit" for m in members], dtype=bool)
    sent = [m for m in members if m.selected_by != "reference"]
    rows = field_rows(tables, sent)
    chances = np.asarray([r["selection_probability"] for r in rows], dtype=np.float64)
    if service is not None and field.any():
        chances = labelling_chances(tables, service, sent, shares)
    found: dict[str, Estimate] = {}
    for name, correct in right.items():
        if audit.any():
            found[f"{name}, audit slice"] = audit_accuracy(correct[audit])
        if field.any():
            groups = [r["group"] for r in rows]
            found[f"{name}, all by weight"] = weighted_accuracy(correct[field], chances, groups=groups, seed=seed)
    return found
