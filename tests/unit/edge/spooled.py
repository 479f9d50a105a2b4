"""Samples and labels for the tests of the spool, what a store holds of them, and a store that fails on demand."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from edgeloop.clients.objects import MemoryStore, ObjectStore, StoreUnavailable
from edgeloop.edge.spool.frames import Frame, decode, scan
from edgeloop.edge.spool.recovery import find_logs
from edgeloop.samples.received import read_segment
from edgeloop.samples.records import Label, Sample

AT = datetime(2026, 1, 1, tzinfo=UTC)


def sample(number: int, service: str = "adder", payload: bytes = b"[1.0,2.0]") -> Sample:
    return Sample(
        sample_id=f"{number:064x}",
        service=service,
        device="d",
        node="n",
        captured_at=AT,
        payload=payload,
        embedding=None if number % 2 else b"\x00\x3c",
        backbone_digest=None,
        model_digest="sha256:r",
        prediction="1.0",
        confidence=0.25,
        selected_by="audit" if number % 3 else "confidence",
        selection_probability=0.05,
        group="g",
    )


def label(number: int, said: str = "1", by: str = "d") -> Label:
    return Label(sample_id=f"{number:064x}", service="adder", label=said, source="device", by=by, at=AT)


def stored_samples(store: ObjectStore) -> list[Sample]:
    samples: list[Sample] = []
    for info in store.list("captures"):
        good, bad = read_segment(store.get(info.key), Sample)
        assert not bad
        samples += good
    return samples


def stored_labels(store: ObjectStore) -> list[Label]:
    labels: list[Label] = []
    for info in store.list("labels"):
        good, bad = read_segment(store.get(info.key), Label)
        assert not bad
        labels += good
    return labels


def stored(store: ObjectStore) -> list[int]:
    """The numbers of the samples in a store, sorted."""
    return sorted(number_of(record.sample_id) for record in stored_samples(store))


def number_of(name: str) -> int:
    return int(name, 16)


def sequence_of(record: Sample) -> int:
    sequence = (record.__pydantic_extra__ or {})["sequence"]
    assert isinstance(sequence, int)
    return sequence


def frames_in(folder: Path, *, pinned: bool = True) -> list[Frame]:
    """All frames in the logs of a spool; without ``pinned``, in those that were not offered to the store."""
    paths = [path for path in find_logs(folder) if pinned or path.suffix != ".sending"]
    return [each for path in paths for each in scan(path.read_bytes()).frames]


def samples_in(folder: Path, *, pinned: bool = True) -> dict[int, int]:
    """Tier by number of the samples in the logs of a spool."""
    found = [(decode(each.body), each.tier) for each in frames_in(folder, pinned=pinned)]
    return {number_of(record.sample_id): tier for record, tier in found if isinstance(record, Sample)}


class Flaky(MemoryStore):
    """Fails on demand, before or after the object is written."""

    def __init__(self) -> None:
        super().__init__()
        self.fail: str | None = None

    def create(self, key: str, data: bytes) -> bool:
        if self.fail == "before":
            raise StoreUnavailable("memory:", "away")
        done = super().create(key, data)
        if self.fail == "after":
            raise StoreUnavailable("memory:", "away")
        return done
