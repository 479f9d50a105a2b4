"""Photos of cats and dogs as a service's world: raw ones from one source, and captures whose raw input stays away."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import numpy as np

from edgeloop.clients.models import Model, load_model
from edgeloop.clients.objects import DirectoryStore
from edgeloop.clients.registry import MemoryRegistry
from edgeloop.learning.evaluate import evaluate
from edgeloop.learning.register import register
from edgeloop.learning.rounds import Plan, Promotion, plan_round, promote
from edgeloop.learning.train import Candidate, train
from edgeloop.quality.ingest import Ingested, ingest
from edgeloop.quality.validate import Validated, suite_of, validate
from edgeloop.samples.records import Label, Sample, digest, sample_id
from edgeloop.samples.releases import parse_release, release_key
from edgeloop.samples.segments import segment_key, write_segment
from edgeloop.samples.service import Service
from edgeloop.samples.table import Tables
from edgeloop.store import FleetStore
from tests.unit.release.champion import release_champion
from tests.unit.samples.make import START, looker

EXPECTATIONS = Path(__file__).resolve().parents[3] / "data" / "expectations"
EXTRACTOR = "mobilenet_v1_1.0_224_quant_embedding_extractor.tflite"


@dataclass(frozen=True)
class Photo:
    """A picture and what a person says that it shows."""

    payload: bytes
    label: str


def photos_of(folder: Path, each: int | None = None) -> list[Photo]:
    """The first ``each`` cats and dogs of a source, in turns."""
    named = {label: sorted((folder / label).glob("*.jpg"))[:each] for label in ("cat", "dog")}
    turns = sorted((number, label, path) for label, paths in named.items() for number, path in enumerate(paths))
    return [Photo(path.read_bytes(), label) for _, label, path in turns]


def watcher(shared: Path) -> Service:
    """A service that tells cats from dogs on the extractor's features; its gate bears with few old samples."""
    return looker(
        image={"size": 160},
        expectations="images",
        trainer={"backbone": str(shared / "models" / EXTRACTOR)},
        gate={"min_samples": 10, "slice_margin": 0.1},
    )


class World:
    """The cloud's half: a directory store, tables, a registry and the ledger."""

    def __init__(self, folder: Path, service: Service) -> None:
        self.service = service
        self.store = DirectoryStore(folder / "store")
        self.tables = Tables(service.name, self.store.table)
        self.registry = MemoryRegistry()
        self.fleet = FleetStore(f"sqlite:///{folder / 'fleet.db'}")
        self.said: list[str] = []
        self._count = 0

    def send(self, samples: Sequence[Sample], labels: Iterable[str]) -> None:
        """Put samples and people's labels into the store, as a node does."""
        given = [
            Label(sample_id=s.sample_id, service=s.service, label=x, source="human", by="someone", at=s.captured_at)
            for s, x in zip(samples, labels, strict=True)
        ]
        for kind, data in (("captures", write_segment(samples)), ("labels", write_segment(given))):
            self.store.create(segment_key(kind, self.service.name, data), data)

    def collect(self) -> tuple[Ingested, Validated]:
        """Ingest and validate."""
        ingested = ingest(self.store, self.tables, self.service)
        suite = suite_of(self.service, EXPECTATIONS)
        return ingested, validate(self.tables, self.service, suite, self.store)

    def reference(self, photos: Sequence[Photo]) -> None:
        """Labelled photos with their bytes, as a data set is imported."""
        self.send([self._sample(p, "none", "reference", payload=p.payload) for p in photos], [p.label for p in photos])

    def capture(self, model: Model, release: str, photos: Sequence[Photo]) -> list[Sample]:
        """What a node sends under ``payload: embedding``: the answer and the features, and no picture."""
        made: list[Sample] = []
        for photo in photos:
            answer = model.predict(photo.payload)
            assert answer.embedding is not None
            made.append(
                self._sample(
                    photo,
                    release,
                    "audit",
                    payload=b"",
                    payload_digest=digest(photo.payload),
                    embedding=answer.embedding.astype(np.dtype("<f2")).tobytes(),
                    backbone_digest=model.backbone_digest,
                    prediction=answer.prediction,
                    confidence=answer.confidence,
                )
            )
        self.send(made, [p.label for p in photos])
        return made

    def _sample(self, photo: Photo, release: str, selected_by: str, **fields: object) -> Sample:
        self._count += 1
        at = START + timedelta(seconds=self._count)
        values: dict[str, object] = {
            "sample_id": sample_id(self.service.name, "door", at, photo.payload),
            "service": self.service.name,
            "device": "door",
            "node": "edge-1",
            "captured_at": at,
            "model_digest": release,
            "prediction": "",
            "selected_by": selected_by,
            "selection_probability": 1.0,
            "group": digest(photo.payload),
        }
        return Sample.model_validate(values | fields)

    def plan(self) -> Plan:
        return plan_round(self.store, self.tables, self.registry, self.fleet, self.service)

    def train(self, plan: Plan) -> Candidate:
        return train(
            self.store, self.tables, self.service, plan.dataset, plan.base, plan.mode, plan.seed, self.said.append
        )

    def round(self) -> tuple[Candidate, Promotion]:
        """Plan, train, evaluate, register and promote."""
        plan = self.plan()
        assert plan.skip is None
        candidate = self.train(plan)
        evaluation = evaluate(self.store, self.tables, self.service, plan.dataset, candidate)
        version = register(
            self.store, self.tables, self.registry, self.service, plan.dataset, candidate, evaluation, "test"
        )
        promotion = promote(
            self.store, self.tables, self.registry, self.fleet, self.service, plan, candidate, evaluation, version
        )
        return candidate, promotion

    def release(self) -> tuple[str, dict[str, bytes], Model]:
        """The champion's release: its digest, its layers and the model that a node would load."""
        released = release_champion(self.store, self.tables, self.registry, self.fleet, self.service)
        assert released is not None
        made = parse_release(self.store.get(release_key(self.service.name, released[1])), released[1])
        layers = {str(x.role): self.store.get(f"blobs/sha256/{x.digest.removeprefix('sha256:')}") for x in made.layers}
        backbone = made.layer("backbone")
        assert backbone is not None
        return released[1], layers, load_model(self.service.node_config(), layers, backbone.digest)
