"""Make a candidate from a dataset version: a head on frozen features, a whole backbone, or a scikit-learn pipeline.

A candidate is a record and blobs in the object store, named by what it was made from, so that a round that was cut
off finds it again instead of training twice. It starts from the champion or from scratch, never from a candidate
that the gate refused.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel

from edgeloop.clients.models import Backbone, read_backbone
from edgeloop.clients.objects import ObjectStore
from edgeloop.errors import BadInput
from edgeloop.learning.features import features_of
from edgeloop.learning.heads import fit_head
from edgeloop.learning.pool import draw_lesson, sample_rows
from edgeloop.learning.tabular import fit_pipeline, to_onnx
from edgeloop.samples.dataset import DatasetVersion
from edgeloop.samples.payloads import decode_features, decode_image
from edgeloop.samples.records import canonical, digest, hexdigest
from edgeloop.samples.releases import blob_key
from edgeloop.samples.service import Service
from edgeloop.samples.table import Tables

__all__ = [
    "Base",
    "Candidate",
    "Mode",
    "Progress",
    "candidate_key",
    "choose_mode",
    "load_candidate",
    "put_blob",
    "round_key",
    "sample_rows",
    "train",
]
Mode = Literal["auto", "head", "full", "sklearn"]
Progress = Callable[[str], None]
#: What every version of a service must be told apart by; a change of the trainer's own code changes it too.
_RECIPE = 1


class Base(BaseModel):
    """The champion that a round starts from."""

    version: str
    dataset: str
    layers: dict[str, str]
    """Blob digest by role."""


class Candidate(BaseModel):
    """What training made; the bytes are blobs in the object store."""

    key: str
    service: str
    mode: str
    dataset: str
    base: Base | None
    seed: int
    layers: dict[str, str]
    """Blob digest by role: ``backbone`` and ``head``, or ``model`` and ``pipeline``; ``keras`` after ``full``."""
    trained_on: dict[str, int]
    """Samples used: ``new`` since the champion's dataset, ``replay`` from it."""
    left_out: dict[str, int] = {}
    """Pool samples that this model could not learn from, by the reason."""
    seconds: float


def choose_mode(service: Service, mode: Mode, base: Base | None) -> str:
    """Resolve ``auto``: pipelines are scikit-learn's; images get a head, after one full training of ``xception``.

    Raises:
        BadInput: the mode does not fit the kind of service.
    """
    if service.kind != "image-classifier":
        if mode in {"auto", "sklearn"}:
            return "sklearn"
        raise BadInput(f"mode {mode} is for images, {service.name} is {service.kind}: use auto or sklearn")
    if mode == "sklearn":
        raise BadInput(
            f"mode sklearn is for tabular services, {service.name} is {service.kind}: use auto, head or full"
        )
    if mode != "auto":
        return mode
    has_backbone = base is not None or str(service.trainer.backbone).endswith(".tflite")
    return "head" if has_backbone else "full"


def round_key(service: Service, dataset: str, base: Base | None, mode: str, seed: int) -> str:
    """Name of the candidate that these inputs make."""
    recipe = service.model_dump(mode="json", include={"trainer", "labels", "features", "image"})
    return digest(canonical([_RECIPE, service.name, dataset, base.version if base else None, mode, seed, recipe]))


def candidate_key(service: str, key: str) -> str:
    """Object key of a candidate's record."""
    return f"candidates/{service}/{hexdigest(key)}.json"


def load_candidate(store: ObjectStore, service: str, key: str) -> Candidate | None:
    """The candidate of this name, if it was made before."""
    where = candidate_key(service, key)
    return None if store.size(where) is None else Candidate.model_validate(json.loads(store.get(where)))


def train(
    store: ObjectStore,
    tables: Tables,
    service: Service,
    dataset: DatasetVersion,
    base: Base | None,
    mode: str,
    seed: int,
    progress: Progress = lambda _: None,
) -> Candidate:
    """Make the candidate for ``dataset``, or return it if it was made already.

    Raises:
        NothingToLearn: the dataset has no labelled pool samples that this mode can use.
        TrainingFailed: the training process of ``mode: full`` died.
    """
    key = round_key(service, dataset.id, base, mode, seed)
    made = load_candidate(store, service.name, key)
    if made:
        return made
    started = time.monotonic()
    backbone = _frozen_backbone(store, service, base) if mode == "head" else None
    lesson = draw_lesson(store, tables, service, dataset, base.dataset if base else None, backbone, seed)
    for reason, count in lesson.left_out.items():
        progress(f"{count} pool samples are left out: {reason}")
    rows = sample_rows(tables, [m.sample_id for m in lesson.members])
    truth = [m.label for m in lesson.members]
    ordered = [rows[m.sample_id] for m in lesson.members]
    if mode == "sklearn":
        layers = _fit_tabular(store, service, ordered, truth, seed)
    else:
        layers = _fit_image(store, service, ordered, truth, base, backbone, seed, progress)
    candidate = Candidate(
        key=key,
        service=service.name,
        mode=mode,
        dataset=dataset.id,
        base=base,
        seed=seed,
        layers=layers,
        trained_on=lesson.counts,
        left_out=lesson.left_out,
        seconds=time.monotonic() - started,
    )
    store.create(candidate_key(service.name, key), canonical(candidate.model_dump(mode="json")))
    return candidate


def put_blob(store: ObjectStore, data: bytes) -> str:
    """Store bytes under their digest, once, and return it."""
    name = digest(data)
    store.create(blob_key(name), data)
    return name


def _fit_tabular(
    store: ObjectStore, service: Service, rows: list[dict[str, Any]], truth: list[str], seed: int
) -> dict[str, str]:
    import pickle

    values = np.stack([decode_features(r["payload"], service.feature_names) for r in rows])
    estimator = fit_pipeline(service, values, truth, seed)
    return {
        "model": put_blob(store, to_onnx(estimator, values.shape[1])),
        "pipeline": put_blob(store, pickle.dumps(estimator, protocol=5)),
    }


def _fit_image(
    store: ObjectStore,
    service: Service,
    rows: list[dict[str, Any]],
    truth: list[str],
    base: Base | None,
    backbone: Backbone | None,
    seed: int,
    progress: Progress,
) -> dict[str, str]:
    """Fit a head on ``backbone``, or on one that is trained on these very rows first."""
    layers: dict[str, str] = {}
    if backbone is None:
        layers = _train_backbone(store, service, rows, truth, base, seed, progress)
        backbone = Backbone(store.get(blob_key(layers["backbone"])), layers["backbone"])
    layers["backbone"] = backbone.digest
    progress(f"features of {len(rows)} samples")
    features = features_of(store, backbone, rows, lambda done, of: progress(f"features {done}/{of}"))
    progress(f"head on {len(rows)} samples")
    head = fit_head(features, truth, service.labels or [], service.trainer.head, seed)
    return {**layers, "head": put_blob(store, head.to_bytes())}


def _frozen_backbone(store: ObjectStore, service: Service, base: Base | None) -> Backbone:
    """The champion's backbone, else the file that ``trainer.backbone`` names."""
    if base is not None:
        return Backbone(store.get(blob_key(base.layers["backbone"])), base.layers["backbone"])
    path = Path(str(service.trainer.backbone)).expanduser()
    backbone = read_backbone(path)
    put_blob(store, path.read_bytes())
    return backbone


def _train_backbone(
    store: ObjectStore,
    service: Service,
    rows: list[dict[str, Any]],
    truth: list[str],
    base: Base | None,
    seed: int,
    progress: Progress,
) -> dict[str, str]:
    from edgeloop.learning.full_job import FullJob, run_full, write_job
    from edgeloop.learning.xception import FullTraining

    labels = service.labels or []
    size = service.image.size if service.image else 71
    images = np.stack([decode_image(r["payload"], size) for r in rows])
    numbers = np.asarray([labels.index(t) for t in truth], dtype=np.int64)
    with tempfile.TemporaryDirectory(prefix="edgeloop-train-") as folder:
        job = Path(folder)
        full = service.trainer.full
        training = FullTraining(
            epochs=full.epochs,
            batch_size=full.batch_size,
            learning_rate=full.learning_rate,
            augment=full.augment,
            seed=seed,
        )
        start = _start_weights(store, service, base, job)
        write_job(
            job,
            FullJob(n_classes=len(labels), weights=start, quantize=full.quantize, training=training),
            images,
            numbers,
        )
        progress(f"training Xception on {len(images)} images")
        run_full(job, _epoch_line(progress))
        return {
            "backbone": put_blob(store, (job / "backbone.tflite").read_bytes()),
            "keras": put_blob(store, (job / "backbone.keras").read_bytes()),
        }


def _start_weights(store: ObjectStore, service: Service, base: Base | None, folder: Path) -> str | None:
    """What full training starts from: the champion's own weights, else what ``trainer.backbone`` names."""
    if base and "keras" in base.layers:
        path = folder / "base.keras"
        path.write_bytes(store.get(blob_key(base.layers["keras"])))
        return str(path)
    _, _, weights = str(service.trainer.backbone).partition(":")
    return weights or None


def _epoch_line(progress: Progress) -> Callable[[int, int, Mapping[str, float]], None]:
    def line(epoch: int, of: int, metrics: Mapping[str, float]) -> None:
        shown = ", ".join(f"{k} {v:.3f}" for k, v in metrics.items() if k in {"loss", "accuracy"})
        progress(f"epoch {epoch}/{of} {shown}")

    return line
