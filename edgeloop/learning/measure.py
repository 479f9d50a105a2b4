"""What the gate needs to know of a candidate beside its answers: time, agreement, what judges it, and the field.

Read from the store and the tables here, so that the decision itself stays a pure function.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from edgeloop.clients.models import Model, load_model
from edgeloop.clients.objects import ObjectStore
from edgeloop.learning.estimate import Estimate, audit_accuracy, weighted_accuracy
from edgeloop.learning.gate_budgets import MOST_TIMED, Latency, measure_latency
from edgeloop.learning.pool import sample_rows
from edgeloop.samples.dataset import Member
from edgeloop.samples.payloads import decode_features
from edgeloop.samples.records import canonical, digest
from edgeloop.samples.releases import blob_key
from edgeloop.samples.service import Service
from edgeloop.samples.table import Tables, one_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Layers that go to nodes; the others stay in the registry.
DEPLOYED = frozenset({"backbone", "head", "model"})
#: ``selected_by`` of samples that were drawn regardless of what a model said of them.
AUDIT = frozenset({"audit", "reference"})


def gate_set(members: Sequence[Member]) -> str:
    """Name of a set of gate samples: a digest of who is in it with which label."""
    return digest(canonical(sorted([m.sample_id, m.label] for m in members)))


def time_models(
    store: ObjectStore,
    tables: Tables,
    service: Service,
    candidate: Mapping[str, str],
    champion: Mapping[str, str] | None,
    ids: Sequence[str],
) -> Latency | None:
    """Time packaged models (blob digest by role) on raw inputs of gate samples; None where all stayed at the node."""
    rows = sample_rows(tables, ids[:MOST_TIMED])
    payloads = [rows[name]["payload"] for name in ids[:MOST_TIMED] if rows[name]["payload"]]
    if not payloads:
        return None
    first = _packaged(store, service, candidate)
    return measure_latency(first, None if champion is None else _packaged(store, service, champion), payloads)


def _packaged(store: ObjectStore, service: Service, layers: Mapping[str, str]) -> Model:
    """A model as nodes load it, with one interpreter."""
    content = {role: store.get(blob_key(name)) for role, name in layers.items() if role in DEPLOYED}
    return load_model(service.node_config(), content, layers.get("backbone"), interpreters=1)


def trained_answers(
    store: ObjectStore, tables: Tables, service: Service, layers: Mapping[str, str], ids: Sequence[str]
) -> list[str] | None:
    """Answers of the scikit-learn pipeline that a model was exported from; None where the export is what was trained.

    That is so for images: a head is fitted on the features of the exported backbone, and kept as it was fitted.
    """
    if "pipeline" not in layers or not ids:
        return None
    rows = sample_rows(tables, ids)
    values = np.stack([decode_features(rows[name]["payload"], service.feature_names) for name in ids])
    estimator = pickle.loads(store.get(blob_key(layers["pipeline"])))  # noqa: S301 (written by our own trainer)
    return [str(answer) for answer in estimator.predict(values)]


def field_estimates(
    tables: Tables, members: Sequence[Member], right: Mapping[str, NDArray[np.bool_]], seed: int
) -> dict[str, Estimate]:
    """Accuracy over all inputs of the fleet, from the audit slice and from all of ``members`` by weight.

    Args:
        tables: knows the probability and the group of each sample.
        members: labelled samples; those of a reference set say nothing of the field and are left out.
        right: whether each answer is right, [members], by the name of the model.
        seed: makes the intervals repeatable.
    """
    columns = ["sample_id", "selection_probability", "group"]
    known = {r["sample_id"]: r for r in tables.read("samples", columns, where=one_of("sample_id", _ids(members)))}
    field = np.asarray([m.selected_by != "reference" for m in members], dtype=bool)
    audit = np.asarray([m.selected_by == "audit" for m in members], dtype=bool)
    rows = [known[m.sample_id] for m in members if m.selected_by != "reference"]
    chances = np.asarray([r["selection_probability"] for r in rows], dtype=np.float64)
    found: dict[str, Estimate] = {}
    for name, correct in right.items():
        if audit.any():
            found[f"{name}, audit slice"] = audit_accuracy(correct[audit])
        if field.any():
            groups = [r["group"] for r in rows]
            found[f"{name}, all by weight"] = weighted_accuracy(correct[field], chances, groups=groups, seed=seed)
    return found


def _ids(members: Sequence[Member]) -> list[str]:
    return [m.sample_id for m in members]
