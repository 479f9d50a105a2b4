"""A model whose behaviour is spelled in its bytes, and a node's parts around it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgeloop.clients.models import Answer, UnloadableModel
from edgeloop.clients.objects import ObjectStore
from edgeloop.edge.gateway import Gateway
from edgeloop.edge.runtime import Loaded, Runtime
from edgeloop.edge.selection.selector import Selectors
from edgeloop.edge.spool.spool import Limits, Spool
from edgeloop.edge.stats import Stats
from edgeloop.samples.payloads import decode_features
from edgeloop.samples.records import digest
from edgeloop.samples.releases import Layer, Release, blob_key, release_key
from edgeloop.samples.service import Feature, NodeConfig, Selection

FEATURES = [Feature(name="a"), Feature(name="b")]
SERVICE = "adder"


@dataclass
class FakeModel:
    """Answers ``yes`` with its first feature as confidence; fails while ``broken``."""

    broken: bool = False
    labels: tuple[str, ...] | None = ("yes", "no")
    backbone_digest: str | None = "sha256:b"
    calls: int = 0

    def predict(self, payload: bytes) -> Answer:
        self.calls += 1
        confidence = float(decode_features(payload, ["a", "b"])[0])
        if self.broken:
            raise RuntimeError("a tensor went missing")
        return Answer("yes", confidence, (confidence, 1 - confidence), np.array([1.5, -2], np.float16))


def config(audit: float = 1.0, below: float | None = None) -> NodeConfig:
    selection = Selection(audit=audit, confidence_below=below)
    return NodeConfig(
        service=SERVICE,
        kind="tabular-classifier",
        features=FEATURES,
        labels=["yes", "no"],
        selection=selection,
    )


def load_fake(
    _config: NodeConfig, layers: Mapping[str, bytes], _backbone: str | None = None, *, endpoint: object = None
) -> FakeModel:
    """Stands in for ``load_model``: the layer ``model`` says ``{"load": bool, "broken": bool}``."""
    behaviour = json.loads(layers["model"])
    if not behaviour.get("load", True):
        raise UnloadableModel("model does not load: export it again")
    return FakeModel(broken=behaviour.get("broken", False))


def publish(store: ObjectStore, version: str, *, probe: str = "yes", **behaviour: Any) -> Release:
    """Put a release of a fake model in ``store``."""
    import base64

    case = {"payload": base64.b64encode(b"[0.5,0.5]").decode(), "prediction": probe}
    parts = {
        "model": json.dumps({"version": version, **behaviour}).encode(),
        "config": config().model_dump_json().encode(),
        "probe": json.dumps({"cases": [case]}).encode(),
    }
    if behaviour.get("broken"):
        del parts["probe"]
    layers: list[Any] = []
    for role, data in parts.items():
        store.create(blob_key(digest(data)), data)
        layers.append(
            Layer.model_validate({"role": role, "digest": digest(data), "size": len(data), "media_type": "x"})
        )
    release = Release(service=SERVICE, version=version, run_id="r", dataset="d", layers=layers)
    store.put(release_key(SERVICE, release.digest), release.to_bytes())
    return release


class Bench:
    """Runtime, spool and gateway of one node, serving a fake model."""

    def __init__(self, folder: Path, *, limits: Limits | None = None, grouped: bool = False, **selection: Any) -> None:
        self.folder = folder
        self.grouped = grouped
        self.limits = limits
        self.config = config(**selection)
        self.model = FakeModel()
        self.start()

    def start(self) -> None:
        """Also what a restart does."""
        self.runtime = Runtime(2)
        self.runtime.switch(SERVICE, Loaded("sha256:r1", "1", self.config, self.model))
        self.spool = Spool(self.folder, self.limits)
        self.stats = Stats([SERVICE])
        self.selectors = Selectors(self.folder / "selection", b"salt")
        self.gateway = Gateway(
            "n1",
            self.runtime,
            self.spool,
            self.stats,
            self.selectors,
            grouped=self.grouped,
            remember=1000,  # a test of memory must not wait until all are there
        )

    def close(self) -> None:
        self.runtime.close()
        self.spool.close()
