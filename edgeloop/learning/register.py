"""Register a candidate in MLflow: model with signature and input example, dataset version, metrics, decision, plots."""

from __future__ import annotations

import tempfile
from pathlib import Path

from edgeloop.clients.objects import ObjectStore
from edgeloop.clients.registry import Entry, LoggedModel, ModelRegistry, ModelVersion
from edgeloop.learning.evaluate import DEPLOYED, Evaluation, predict_split
from edgeloop.learning.logged import LoggedImageModel, LoggedPipeline
from edgeloop.learning.plots import plot_test
from edgeloop.learning.train import Candidate
from edgeloop.samples.dataset import DatasetVersion, dataset_members, example_payloads
from edgeloop.samples.inputs import drawn_inputs
from edgeloop.samples.releases import blob_key
from edgeloop.samples.service import Service
from edgeloop.samples.table import Tables


def register(
    store: ObjectStore,
    tables: Tables,
    registry: ModelRegistry,
    service: Service,
    dataset: DatasetVersion,
    candidate: Candidate,
    evaluation: Evaluation,
    reason: str,
) -> ModelVersion:
    """Register ``candidate`` once, whatever the gate says of it; a second call finds the first one's version.

    Raises:
        RegistryUnavailable: MLflow does not answer; run again.
    """
    known = registry.find(service.name, candidate.key)
    if known:
        return known
    with tempfile.TemporaryDirectory(prefix="edgeloop-register-") as folder:
        files = Path(folder) / "evaluation"
        files.mkdir()
        (files / "gate.json").write_text(evaluation.model_dump_json(indent=2), encoding="utf-8")
        (files / "dataset.json").write_text(dataset.model_dump_json(indent=2), encoding="utf-8")
        members = dataset_members(store, tables, dataset)
        shown = predict_split(store, tables, service, dataset, candidate, "test", members=members)
        plot_test(service, shown, files / "test.png")
        example = (example_payloads(tables, service.name, dataset, 1, members) or drawn_inputs(service, 1))[0]
        return registry.register(
            _entry(service, dataset, candidate, evaluation, reason),
            _logged(store, service, candidate, example, Path(folder)),
            files,
        )


def _entry(
    service: Service, dataset: DatasetVersion, candidate: Candidate, evaluation: Evaluation, reason: str
) -> Entry:
    decision = evaluation.decision
    metrics = {
        f"gate_{service.metric}": decision.candidate,
        f"gate_{service.metric}_champion": decision.champion,
        "gate_gain": decision.gain,
        "gate_gain_low": decision.gain_low,
        "gate_agreement": decision.agreement.share if decision.agreement else None,
        "gate_latency_ms": decision.latency.candidate_ms if decision.latency else None,
        "gate_release_bytes": decision.release_bytes,
        f"test_{service.metric}": evaluation.test.candidate,
        f"test_{service.metric}_champion": evaluation.test.champion,
        "train_seconds": candidate.seconds,
    }
    params = {
        "mode": candidate.mode,
        "seed": candidate.seed,
        "dataset": dataset.id,
        "base_version": candidate.base.version if candidate.base else "none",
        **{f"samples_{k}": v for k, v in candidate.trained_on.items()},
        "samples_left_out": sum(candidate.left_out.values()),
        **{f"dataset_{k}": v for k, v in dataset.counts.items()},
        **{f"table_{k}": v for k, v in dataset.tables.items()},
    }
    return Entry(
        service=service.name,
        key=candidate.key,
        dataset=dataset.id,
        layers=candidate.layers,
        params={k: str(v) for k, v in params.items()},
        metrics={k: v for k, v in metrics.items() if v is not None},
        tags={"edgeloop.reason": reason, "edgeloop.gate": decision.verdict, "edgeloop.gate_reason": decision.reason},
        description=f"{candidate.mode}: {reason}",
    )


def _logged(store: ObjectStore, service: Service, candidate: Candidate, example: bytes, folder: Path) -> LoggedModel:
    layers = {role: store.get(blob_key(name)) for role, name in candidate.layers.items() if role in DEPLOYED}
    if service.kind != "image-classifier":
        return LoggedPipeline(service, store.get(blob_key(candidate.layers["pipeline"])), layers["model"], example)
    return LoggedImageModel(service, layers, candidate.layers["backbone"], example, folder)
