"""A service with a release, recent samples and a store: all that a rehearsal asks for, but for the node's minutes."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from edgeloop.clients.objects import DirectoryStore
from edgeloop.clients.registry import ModelVersion
from edgeloop.release.build import build_release
from edgeloop.samples.payloads import encode_features
from edgeloop.samples.profiles import Profile
from edgeloop.samples.records import Sample, digest, now
from edgeloop.samples.releases import Release, Variant, blob_key, release_key
from edgeloop.samples.segments import to_row
from edgeloop.samples.table import Tables
from edgeloop.store.database import Database
from edgeloop.twin.kept import Rehearsals
from edgeloop.twin.records import Load, Step, TwinReport
from edgeloop.twin.run import Parts
from tests.unit.samples.make import regressor, sample


def profile(name: str = "bench", **changes: Any) -> Profile:
    """A profile with room for everything."""
    values: dict[str, Any] = {
        "version": 1,
        "name": name,
        "description": "a board",
        "arch": "amd64",
        "runtime": {"tabular-regressor": "onnx"},
        "cores": 1,
        "memory_mb": 512,
        "latency_ms_p99": 500,
    }
    return Profile.model_validate(values | changes)


@cache
def onnx(factor: int = 1) -> bytes:
    """A model that answers ``factor * (a + b)``."""
    from skl2onnx import to_onnx
    from sklearn.linear_model import LinearRegression

    rows = np.random.default_rng(0).normal(size=(50, 2)).astype(np.float32)
    made: bytes = to_onnx(LinearRegression().fit(rows, factor * rows.sum(axis=1)), rows[:1]).SerializeToString()
    return made


class House:
    """Everything in ``folder``; ``samples`` were captured."""

    def __init__(self, folder: Path, samples: int = 40, **twin: Any) -> None:
        self.folder = folder
        self.store = DirectoryStore(folder / "store")
        self.service = regressor(delivery={"twin": {"inputs": 40, "load": False} | twin})
        self.tables = Tables("rater", self.store.table)
        rows = [to_row(sample(n, payload=encode_features([n % 10, n / 10]))) for n in range(samples)]
        self.tables.merge("samples", rows, Sample)
        self.database = Database(f"sqlite:///{folder / 'fleet.db'}")
        self.rehearsals = Rehearsals(self.database)

    def parts(self, **changes: Any) -> Parts:
        """What :func:`~edgeloop.twin.run.rehearse` takes."""
        return Parts(self.store, lambda _: self.tables, self.rehearsals, **changes)

    def release(self, number: str = "1", factor: int = 1) -> Release:
        """A release of version ``number``."""
        data = onnx(factor)
        self.store.create(blob_key(digest(data)), data)
        values = {"key": f"sha256:{number}", "run_id": "r", "dataset": "d", "layers": {"model": digest(data)}}
        version = ModelVersion.model_validate({"service": "rater", "version": number, **values})
        return build_release(self.store, self.service, version, [encode_features([n, 1]) for n in range(3)], {})

    def varied(self, name: str = "bench", factor: int = 2, runtime: str = "onnx") -> Release:
        """A release whose variant for profile ``name`` answers with another factor, and has a probe to match."""
        whole, other = self.release(), self.release("1", factor)
        told = {"profile": name, "runtime": runtime, "precision": "float32", "agreement": 1.0, "compared": 9}
        variant = Variant.model_validate({**told, "layers": other.layers})
        made = whole.model_copy(update={"variants": [variant]})
        self.store.put(release_key("rater", made.digest), made.to_bytes())
        return made


def report(**changes: Any) -> TwinReport:
    """A report in which all is well."""
    step = Step(rate=100.0, asked=100, failed=0, p99_ms=20.0, held=True)
    values: dict[str, Any] = {
        "service": "rater",
        "model": "1",
        "release": "sha256:" + "a" * 64,
        "profile": profile(),
        "rules": regressor().delivery.twin,
        "machine": "here",
        "at": now(),
        "seconds": 3.0,
        "outcome": "pass",
        "reasons": [],
        "source": "captured",
        "inputs": 200,
        "self_check": True,
        "compared": 200,
        "same": 200,
        "p50_ms": 2.0,
        "p99_ms": 5.0,
        "peak_mb": 120.0,
        "load": Load(holds_at=100.0, breaks_at=150.0, limit="node", steps=[step]),
    }
    return TwinReport.model_validate(values | changes)
