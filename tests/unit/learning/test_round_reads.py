"""What a round reads of the store follows what it learns from, not how much was ever collected."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeloop.bench.retrain.counting import CountingStore
from edgeloop.clients.models import read_backbone
from edgeloop.learning.train import Base, Candidate, train
from edgeloop.samples.dataset import freeze
from edgeloop.samples.records import Label, Sample, Verdict
from edgeloop.samples.releases import blob_key
from edgeloop.samples.segments import to_row
from edgeloop.samples.table import Tables, Where
from tests.unit.learning.photos import EXTRACTOR, World, watcher
from tests.unit.samples.make import START, label, withheld

REPLAY = 40


class Watched(Tables):
    """Tables that count the heavy rows that they hand out."""

    heavy = 0

    def each(self, name: str, columns: Any, where: Where) -> Iterator[dict[str, Any]]:
        for row in super().each(name, columns, where):
            self.heavy += 1
            yield row

    def read(self, name: str, columns: Any = None, version: Any = None, where: Any = None) -> list[dict[str, Any]]:
        found = super().read(name, columns, version, where)
        if columns is None or {"payload", "embedding"} & set(columns):
            self.heavy += len(found)
        return found


@pytest.fixture
def world(shared: Path, tmp_path: Path) -> Iterator[World]:
    service = watcher(shared)
    trainer = service.trainer.model_copy(update={"replay": REPLAY})
    made = World(tmp_path, service.model_copy(update={"trainer": trainer}))
    yield made
    made.fleet.close()


def add(world: World, backbone: str, first: int, last: int) -> None:
    """Labelled samples with features and no picture."""
    rng = np.random.default_rng(first)
    made = [
        withheld(n, [*rng.normal(size=1023), float(n % 2)], backbone, world.service.name, group=f"group-{n}")
        for n in range(first, last)
    ]
    world.tables.merge("samples", [to_row(s) for s in made], Sample)
    verdicts = [Verdict(sample_id=s.sample_id, accepted=True, at=START) for s in made]
    world.tables.merge("verdicts", [to_row(v) for v in verdicts], Verdict)
    labels = [label(s, ("cat", "dog")[n % 2]) for n, s in enumerate(made, first)]
    world.tables.merge("labels", [to_row(x) for x in labels], Label)


def world_bytes(world: World, base: Base, index: int) -> int:
    """Bytes that every round reads whatever it learns from: the champion's blobs and the index."""
    return index + sum(world.store.size(blob_key(name)) or 0 for name in base.layers.values())


def learned(world: World, base: Base | None) -> tuple[Candidate, int, CountingStore]:
    """One training: the candidate, how many heavy rows it read, and the store that it read."""
    store = CountingStore(world.store)
    tables = Watched(world.service.name, store.table)
    dataset = freeze(store, tables, world.service.name)
    return train(store, tables, world.service, dataset, base, "head", 0), tables.heavy, store


def test_a_training_reads_new_rows_and_replayed_features_only(
    world: World, shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgeloop.learning.kept_rows._GAP_BYTES", 4096)  # in proportion to so short a history
    backbone = read_backbone(shared / "models" / EXTRACTOR).digest
    costs: list[tuple[int, int]] = []
    base: Base | None = None
    done = 0
    for size in (200, 400, 800):
        add(world, backbone, done, size - 20)
        champion, _, _ = learned(world, base)
        base = Base(version=str(size), dataset=champion.dataset, layers=champion.layers)
        add(world, backbone, size - 20, size)
        done = size
        made, heavy, store = learned(world, base)
        assert made.trained_on["replay"] == REPLAY
        assert heavy <= 20, "the rows of new samples, once"
        parts = sum(info.key.endswith(".rows") for info in world.store.list(""))
        features = store.read_bytes - world_bytes(world, base, 5 * 36 * size)
        costs.append((store.reads - 6 * parts, features))
    assert max(reads for reads, _ in costs) <= REPLAY + 20, costs
    assert max(features for _, features in costs) <= (REPLAY + 20) * (2048 + 4096), "of 1,600,000 that are kept"


def test_the_lesson_is_the_same_with_an_empty_cache(world: World, shared: Path) -> None:
    backbone = read_backbone(shared / "models" / EXTRACTOR).digest
    add(world, backbone, 0, 60)
    first, heavy, _ = learned(world, None)
    assert heavy > 0
    for info in list(world.store.list("")):
        if info.key.startswith(("features/", "inputs/", "candidates/")):
            world.store.delete(info.key)
    again, _, _ = learned(world, None)
    assert again.layers == first.layers
    assert again.left_out == first.left_out == {}
