"""A service whose samples arrive and are looked at, without servers: tables, registry, ledger and a fake Prefect."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from edgeloop.clients.objects import MemoryStore, ObjectStore
from edgeloop.clients.orchestrator import FakeOrchestrator
from edgeloop.clients.registry import Entry, MemoryRegistry
from edgeloop.learning.drift.acting import act
from edgeloop.learning.drift.looking import Looked, look
from edgeloop.samples.dataset import freeze
from edgeloop.samples.payloads import encode_features
from edgeloop.samples.records import Label, Sample, Verdict, digest
from edgeloop.samples.segments import to_row
from edgeloop.samples.service import Service, load_service
from edgeloop.samples.table import Tables
from edgeloop.store import FleetStore
from tests.unit.samples.make import START, label, sample

ROOT = Path(__file__).resolve().parents[4]


def wine_rater() -> Service:
    """The service of the repository."""
    return load_service("wine-rater", [ROOT / "deployments" / "services"])


class World:
    """What a monitor sees of one service."""

    def __init__(self, folder: Path, service: Service, store: ObjectStore | None = None) -> None:
        self.service = service
        self.store: Any = store or MemoryStore()
        self.tables = Tables(service.name, self.store.table)
        self.registry = MemoryRegistry()
        self.fleet: Any = FleetStore(f"sqlite:///{folder / 'fleet.db'}")
        self.asked: list[dict[str, str]] = []
        self.orchestrator: Any = FakeOrchestrator({"loop/loop": self._run})
        self.release: str | None = None
        self._count = 0

    def _run(self, service: str, reason: str) -> None:
        self.asked.append({"service": service, "reason": reason})

    def deliver(self, rows: Any, selected_by: str = "audit", **changes: Any) -> list[Sample]:
        """Accepted samples of feature rows; those of nodes were answered by the release that serves."""
        made = []
        values = {"model_digest": self.release or "none", "selected_by": selected_by} | changes
        for row in rows:
            self._count += 1
            payload = encode_features([float(v) for v in row])
            made.append(sample(self._count, self.service.name, payload, **values))
        return self.accept(made)

    def accept(self, made: list[Sample]) -> list[Sample]:
        self.tables.merge("samples", [to_row(s) for s in made], Sample)
        verdicts = [Verdict(sample_id=s.sample_id, accepted=True, at=START + timedelta(days=1)) for s in made]
        self.tables.merge("verdicts", [to_row(v) for v in verdicts], Verdict)
        return made

    def label(self, samples: Sequence[Sample], texts: Sequence[str]) -> None:
        rows = [to_row(label(s, text)) for s, text in zip(samples, texts, strict=True)]
        self.tables.merge("labels", rows, Label)

    def promote(self, layers: dict[str, str] | None = None) -> str:
        """A new champion of everything that is there, released to the nodes; its version."""
        name = self.service.name
        dataset = freeze(self.store, self.tables, name).id
        values: dict[str, Any] = {"params": {}, "metrics": {}, "description": "test"}
        key = f"key-{self._count}"
        entry = Entry(service=name, key=key, dataset=dataset, layers=layers or {"model": digest(b"model")}, **values)
        version = self.registry.register(entry, None, Path()).version  # type: ignore[arg-type]
        self.registry.set_champion(name, version)
        self.release = digest(f"release {version}".encode())
        self.fleet.add_release(name, version, self.release)
        return version

    def look(self) -> Looked:
        return look(self.store, self.tables, self.registry, self.fleet, self.service)

    def monitor(self) -> Looked:
        """What the flow does for one service; what it asked for is run."""
        looked = self.look()
        if looked.state:
            for run in act(self.fleet, self.orchestrator, looked.state):
                self.orchestrator.wait(run, 1)
        return looked

    def ledger(self) -> list[dict[str, Any]]:
        return [row for row in self.fleet.history(self.service.name, 1000) if row["event"] == "drift"]
