"""An image service with a trained backbone, small enough to convert in a second, and its samples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from edgeloop.clients.models import Backbone, LinearHead
from edgeloop.clients.objects import MemoryStore
from edgeloop.clients.registry import MemoryRegistry, ModelVersion
from edgeloop.quality.validate import validate
from edgeloop.release.build import make_release
from edgeloop.samples.dataset import freeze
from edgeloop.samples.profiles import Profile
from edgeloop.samples.records import Label, Sample, digest
from edgeloop.samples.releases import Release, Role, Variant, blob_key
from edgeloop.samples.segments import to_row
from edgeloop.samples.service import Service
from edgeloop.samples.table import Tables
from edgeloop.store import FleetStore
from tests.unit.learning.tiny import bars
from tests.unit.samples.make import encoded, label, looker, sample

LABELS = ("cat", "dog")
SAMPLES = 90


def profile(name: str = "pi", **changes: Any) -> Profile:
    """A profile that runs images by LiteRT and tables by ONNX, with every budget wide."""
    values: dict[str, Any] = {
        "version": 1,
        "name": name,
        "description": "a board",
        "arch": "arm64",
        "runtime": {"image-classifier": "litert", "tabular-regressor": "onnx", "tabular-classifier": "onnx"},
        "precision": "as-trained",
        "cores": 1,
        "memory_mb": 128,
        "latency_ms_p99": 100,
    }
    return Profile.model_validate(values | changes)


def fit_head(features: Any, truth: Any, seed: int = 0) -> LinearHead:
    """A head by ridge regression on standardised features, which leans on none alone; ``seed`` changes it a little."""
    rows = np.asarray(features, np.float64)
    mean, spread = rows.mean(0), rows.std(0) + 1e-9
    scaled = (rows - mean) / spread
    gram = scaled.T @ scaled + len(rows) * np.eye(rows.shape[1])
    weights = np.linalg.solve(gram, scaled.T @ (np.eye(2)[truth] * 8 - 4))
    weights = weights / spread[:, None] * (1 + seed / 100)
    return LinearHead(weights.astype(np.float32), (-mean @ weights).astype(np.float32), LABELS)


class Bars:
    """A store with the samples, the dataset and a model version of ``looker``, whose backbone was trained here."""

    def __init__(self, folder: Path, files: Path) -> None:
        self.store = MemoryStore()
        self.tables = Tables("looker", self.store.table)
        self.fleet = FleetStore(f"sqlite:///{folder / 'fleet.db'}")
        self.registry = MemoryRegistry()
        self.images, self.truth = bars(SAMPLES)
        payloads = [encoded(Image.fromarray(image), "PNG") for image in self.images]
        samples = [sample(n, "looker", payload, prediction="cat") for n, payload in enumerate(payloads)]
        self.tables.merge("samples", [to_row(s) for s in samples], Sample)
        named = [label(s, LABELS[t]) for s, t in zip(samples, self.truth, strict=True)]
        self.tables.merge("labels", [to_row(x) for x in named], Label)
        validate(self.tables, self.service(), [])
        self.dataset = freeze(self.store, self.tables, "looker")
        litert = (files / "backbone.tflite").read_bytes()
        backbone = Backbone(litert, "b", 1)
        self.features = np.stack([backbone.features(image) for image in self.images])
        self.files = {"backbone": litert, "keras": (files / "backbone.keras").read_bytes()}

    def service(self, *profiles: Profile, **changes: Any) -> Service:
        """``looker`` for 71 px images, released for these profiles."""
        named = {"profiles": [p.name for p in profiles]}
        return looker(**{"image": {"size": 71}, "delivery": named} | changes)

    def blob(self, data: bytes) -> str:
        """Store bytes and return their name."""
        self.store.create(blob_key(digest(data)), data)
        return digest(data)

    def version(self, number: str = "1", *, keras: bool = True) -> ModelVersion:
        """A registered model version; another number has another head."""
        head = fit_head(self.features, self.truth, int(number))
        layers = {role: self.blob(data) for role, data in self.files.items() if keras or role != "keras"}
        return ModelVersion(
            service="looker",
            version=number,
            run_id=f"run-{number}",
            key=f"sha256:key-{number}",
            dataset=self.dataset.id,
            layers=layers | {"head": self.blob(head.to_bytes())},
        )

    def release(self, version: ModelVersion, *profiles: Profile, **changes: Any) -> Release:
        """Release a version for these profiles."""
        service = self.service(*profiles, **changes)
        return make_release(self.store, self.tables, self.fleet, service, version, profiles)

    def layer(self, variant: Variant, role: Role) -> bytes:
        """Bytes of a layer."""
        return self.store.get(blob_key(name_of(variant, role)))


def name_of(variant: Variant, role: Role) -> str:
    """Digest of a layer."""
    return next(layer.digest for layer in variant.layers if layer.role == role)
