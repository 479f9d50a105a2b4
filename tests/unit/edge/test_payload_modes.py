"""What leaves the node by each ``payload`` of a policy, looked at in the spool's bytes and in the uploaded segment."""

from __future__ import annotations

import base64
import io
import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from edgeloop.clients.models import Answer
from edgeloop.clients.objects import MemoryStore
from edgeloop.edge.runtime import Loaded
from edgeloop.samples.received import read_segment
from edgeloop.samples.records import Sample, digest
from edgeloop.samples.service import ImageInput, NodeConfig, Selection
from tests.unit.edge.fakes import SERVICE, Bench

AT = datetime(2026, 1, 1, tzinfo=UTC)
#: Random, so that no compression can hide it.
PICTURE = b"\xff\xd8\xff" + random.Random(7).randbytes(300)
EMBEDDING = np.array([random.Random(8).gauss(0, 1) for _ in range(64)], np.float16)
Mode = Literal["raw", "embedding", "both"]


@dataclass
class Seer:
    """Sees a cat in everything."""

    embedding: Any = None
    labels: tuple[str, ...] | None = ("cat", "dog")
    backbone_digest: str | None = "sha256:b"

    def predict(self, payload: bytes) -> Answer:
        return Answer("cat", 0.9, (0.9, 0.1), self.embedding)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.close()


def serve(bench: Bench, mode: Mode, embedding: Any = EMBEDDING) -> None:
    policy = Selection(audit=1.0, payload=mode)
    image = ImageInput(size=16)
    config = NodeConfig(service=SERVICE, kind="image-classifier", image=image, labels=["cat", "dog"], selection=policy)
    bench.runtime.switch(SERVICE, Loaded("sha256:r1", "1", config, Seer(embedding)))


def is_in(held: bytes, data: bytes) -> bool:
    """Whether a piece of ``data`` is in ``held`` in any of the ways in which a file may spell it."""
    piece = data[50:110]
    return any(spelled in held for spelled in (piece, piece.hex().encode(), base64.b64encode(data[51:111])))


def on_disk(bench: Bench) -> bytes:
    return b"".join(path.read_bytes() for path in bench.folder.rglob("*") if path.is_file())


def uploaded(bench: Bench) -> tuple[bytes, Sample]:
    """The bytes of the one segment with all that its columns hold, and the sample in it."""
    import pyarrow.parquet

    store = MemoryStore()
    bench.spool.cut(everything=True)
    bench.spool.upload(store)
    (info,) = store.list("")
    data = store.get(info.key)
    cells = [cell for column in pyarrow.parquet.read_table(io.BytesIO(data)).to_pydict().values() for cell in column]
    shown = b"\n".join(cell if isinstance(cell, bytes) else str(cell).encode() for cell in cells)
    ((sample,), _) = read_segment(data, Sample)
    return data + shown, sample


@pytest.mark.parametrize("mode", ["raw", "embedding", "both"])
def test_each_mode_sends_what_it_says_and_nothing_else(bench: Bench, mode: Mode) -> None:
    serve(bench, mode)
    result = bench.gateway.handle(SERVICE, "d1", PICTURE, AT)
    assert result.captured
    spooled = on_disk(bench)
    segment, sample = uploaded(bench)
    vector = EMBEDDING.tobytes()
    for held in (spooled, segment):
        assert is_in(held, PICTURE) == (mode != "embedding")
        assert is_in(held, vector) == (mode != "raw")
    assert mode != "embedding" or not is_in(on_disk(bench), PICTURE), "nor is it remembered after the upload"
    assert sample.payload == (b"" if mode == "embedding" else PICTURE)
    assert sample.embedding == (None if mode == "raw" else vector)
    assert sample.backbone_digest == (None if mode == "raw" else "sha256:b")
    assert (sample.sample_id, sample.group) == (result.sample_id, digest(PICTURE))
    assert (sample.__pydantic_extra__ or {}).get("payload_digest") == (digest(PICTURE) if not sample.payload else None)


def test_where_there_is_no_embedding_an_input_is_answered_and_stays(bench: Bench) -> None:
    serve(bench, "embedding", None)
    result = bench.gateway.handle(SERVICE, "d1", PICTURE, AT)
    assert (result.outcome, result.prediction, result.error) == ("ok", "cat", None)
    assert (result.captured, result.selected_by) == (False, None)
    stats = bench.stats.services[SERVICE]
    assert (stats.outcomes, stats.passed) == ({"ok": 1}, {"no-embedding": 1})
    assert bench.spool.samples == 0
    assert not is_in(on_disk(bench), PICTURE)
    bench.spool.cut(everything=True)
    store = MemoryStore()
    bench.spool.upload(store)
    assert list(store.list("")) == []
