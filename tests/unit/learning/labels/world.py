"""A home with accepted samples of one service, for the tests of labelling."""

from __future__ import annotations

from collections.abc import Sequence

from edgeloop.clients.objects import MemoryStore, ObjectStore
from edgeloop.learning.labels.answers import keep
from edgeloop.samples.records import Label, Sample, Verdict, now
from edgeloop.samples.segments import to_row
from edgeloop.samples.service import Service
from edgeloop.samples.table import Tables


class World:
    """A store, its tables, and a service."""

    def __init__(self, service: Service, store: ObjectStore | None = None) -> None:
        self.service = service
        self.store: ObjectStore = store or MemoryStore()
        self.tables = Tables(service.name, self.store.table)

    def add(self, samples: Sequence[Sample], accepted: bool | None = True) -> None:
        self.tables.merge("samples", [to_row(s) for s in samples], Sample)
        if accepted is not None:
            verdicts = [Verdict(sample_id=s.sample_id, accepted=accepted, at=now()) for s in samples]
            self.tables.merge("verdicts", [to_row(v) for v in verdicts], Verdict)

    def label(self, *labels: Label) -> None:
        """As ingest leaves them."""
        self.tables.merge("labels", [to_row(x) for x in labels], Label)

    def send(self, *labels: Label) -> None:
        """As they wait for ingest."""
        keep(self.store, self.service, labels)
