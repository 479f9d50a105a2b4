"""A sample's row is read once in its life; after that its features come from the cache, and from no other sample."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from edgeloop.bench.retrain.counting import CountingStore
from edgeloop.clients.models import Backbone
from edgeloop.clients.objects import MemoryStore, ObjectStore, open_store
from edgeloop.learning.features import (
    KEPT_TOGETHER,
    NO_INPUT,
    OTHER_BACKBONE,
    UNUSABLE,
    KnownSpace,
    MissingFeatures,
    feature_prefix,
    feature_rows,
)
from edgeloop.learning.kept_rows import KeptRows
from edgeloop.learning.sample_features import lacking_samples, sample_features
from edgeloop.samples.records import Sample, digest
from edgeloop.samples.segments import to_row
from edgeloop.samples.table import Tables, Where
from tests.unit.learning.test_features import DIGEST, Counting
from tests.unit.samples.make import picture, sample, withheld

SPACE = KnownSpace(DIGEST, 3)
ROOT = Path(__file__).resolve().parents[3]


class Watched(Tables):
    """Tables that count the rows handed out with their payload."""

    rows = 0

    def each(self, name: str, columns: Any, where: Where) -> Iterator[dict[str, Any]]:
        for row in super().each(name, columns, where):
            self.rows += 1
            yield row


class World:
    def __init__(self, store: ObjectStore | None = None) -> None:
        self.store = store or MemoryStore()
        self.tables = Watched("looker", self.store.table)
        self.backbone = Counting()
        self.loads = 0

    def add(self, *samples: Sample) -> list[str]:
        self.tables.merge("samples", [to_row(s) for s in samples], Sample)
        return [s.sample_id for s in samples]

    def photos(self, *numbers: int, **changes: Any) -> list[str]:
        return self.add(*(sample(n, "looker", picture(n), **changes) for n in numbers))

    def load(self) -> Backbone:
        self.loads += 1
        return cast(Backbone, self.backbone)

    def ask(self, ids: list[str], space: KnownSpace = SPACE) -> Any:
        return sample_features(self.store, self.tables, space, self.load, ids)

    def lacking(self, ids: list[str], space: KnownSpace | None = SPACE) -> dict[str, str]:
        return lacking_samples(self.store, self.tables, space, ids)


def test_rows_are_read_once_and_the_backbone_is_loaded_only_to_compute() -> None:
    world = World()
    ids = world.photos(1, 2, 3)
    first = world.ask([ids[2], ids[0], ids[2]])
    assert first.shape == (3, 3)
    assert first.dtype == np.float32
    assert np.array_equal(first[0], first[2])
    assert (world.tables.rows, world.loads, world.backbone.calls) == (2, 1, 2)
    assert np.array_equal(world.ask([ids[0], ids[2]]), first[[1, 0]])
    assert (world.tables.rows, world.loads) == (2, 1)
    assert world.ask(ids).shape == (3, 3)
    assert (world.tables.rows, world.loads, world.backbone.calls) == (3, 2, 3)
    assert world.ask([]).shape == (0, 3)


def test_of_another_backbone_only_what_is_missing_is_computed() -> None:
    world = World()
    ids = world.photos(1, 2)
    world.ask(ids)
    other = KnownSpace(digest(b"another"), 3)
    world.backbone = Counting(other.digest)
    world.ask(ids[:1], other)
    assert world.backbone.calls == 1
    world.ask(ids, other)
    assert world.backbone.calls == 2


def test_what_a_sample_brought_is_kept_for_that_sample_alone() -> None:
    """Two nodes saw the same input; one says nonsense of it."""
    world = World()
    [liar] = world.add(withheld(1, [9, 9, 9], DIGEST))
    [honest] = world.add(sample(101, "looker", picture(1)))
    found = world.ask([liar, honest])
    assert found[0].tolist() == [9, 9, 9]
    assert found[1].tolist() != [9, 9, 9]
    assert world.backbone.calls == 1
    rows = world.tables.rows
    assert np.array_equal(world.ask([honest, liar]), found[[1, 0]])
    assert world.tables.rows == rows


def test_why_samples_cannot_be_used_is_known_without_reading_them_again() -> None:
    world = World()
    good = world.photos(1)
    bare = world.add(withheld(2, [1, 2, 3], DIGEST))
    lost = world.add(withheld(3, [1, 2, 3], "sha256:other"), withheld(4, [1, 2], DIGEST))
    ids = [*good, *bare, *lost]
    assert world.lacking(ids) == {lost[0]: OTHER_BACKBONE, lost[1]: UNUSABLE}
    rows = world.tables.rows
    assert world.lacking([*good, *bare]) == {}
    assert world.lacking(ids, None) == dict.fromkeys([*bare, *lost], NO_INPUT)
    assert world.tables.rows == rows
    with pytest.raises(MissingFeatures, match=f"2 samples of looker, {min(lost)} among them.*: leave them out"):
        world.ask(ids)


def test_a_sample_that_is_in_no_table_is_named() -> None:
    with pytest.raises(MissingFeatures, match="1 samples of looker, nobody among them"):
        World().ask(["nobody"])


def test_a_cache_that_another_backbone_wrote_is_passed_over_and_made_anew(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    ids = world.photos(1, 2)
    wrong = {digest(picture(n)): np.asarray([7, 7, 7], "<f2").tobytes() for n in (1, 2)}
    KeptRows(world.store, feature_prefix(DIGEST), digest(b"another"), 6).put(wrong)
    KeptRows(world.store, feature_prefix(DIGEST), DIGEST, 8).put({n: row + b"\0\0" for n, row in wrong.items()})
    found = world.ask(ids)
    assert not (found == 7).any()
    assert world.backbone.calls == 2
    assert "its rows are of" in caplog.text
    assert "8 bytes, not 6" in caplog.text


def test_rounds_over_a_longer_history_read_no_more_of_the_store() -> None:
    """The index of names aside, which is 36 bytes a row."""
    reads: list[tuple[int, int]] = []
    world = World()
    world.backbone.length = 3000
    space = KnownSpace(DIGEST, 3000)
    for first in (0, 100, 300):
        rng = np.random.default_rng(first)
        names = {digest(b"%d" % n): rng.normal(size=3000).astype("<f2").tobytes() for n in range(first, first + 200)}
        feature_rows(world.store, space).put(names)
        ids = world.photos(first, *range(first + 1, first + 5))
        feature_rows(world.store, space).put({digest(picture(n)): bytes(6000) for n in range(first, first + 5)})
        world.ask(ids, space)
        counting = CountingStore(world.store)
        tables = Watched("looker", counting.table)
        sample_features(counting, tables, space, world.load, ids)
        assert tables.rows == 0
        kept = len(feature_rows(world.store, space).all())
        parts = len(list(world.store.list("features"))) + len(list(world.store.list("inputs")))
        reads.append((counting.reads - 4 * parts, counting.read_bytes - 2 * 36 * kept))
    assert max(read for read, _ in reads) <= 10
    assert max(size for _, size in reads) < 5 * (65_536 + 6000), "of 3,600,000 that are kept"


DYING = """
import os, signal, sys
from pathlib import Path
from edgeloop.learning.features import features_of
from edgeloop.learning.pool import sample_rows
from tests.unit.learning.test_sample_features import KEPT_TOGETHER, World, open_store

world = World(open_store(sys.argv[1]))
real = world.backbone.features

def features(image):
    if world.backbone.calls > KEPT_TOGETHER + 20:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(image)

world.backbone.features = features
ids = world.photos(*range(KEPT_TOGETHER + 60))
if sys.argv[2] == "rows":
    features_of(world.store, world.load(), list(sample_rows(world.tables, ids).values()))
world.ask(ids)
"""


@pytest.mark.parametrize("way", ["rows", "ids"])
def test_a_computation_that_is_killed_keeps_what_it_did(way: str, tmp_path: Path) -> None:
    ended = subprocess.run([sys.executable, "-c", DYING, str(tmp_path), way], cwd=ROOT, env=os.environ, check=False)
    assert ended.returncode == -signal.SIGKILL
    world = World(open_store(str(tmp_path)))
    count = KEPT_TOGETHER + 60
    ids = [s.sample_id for s in (sample(n, "looker", picture(n)) for n in range(count))]
    found = world.ask(ids)
    assert world.backbone.calls == count - KEPT_TOGETHER
    alone = Counting()
    from edgeloop.samples.payloads import decode_image

    expected = [alone.features(decode_image(picture(n), 8)).astype(np.float16) for n in range(count)]
    assert np.array_equal(found, np.stack(expected).astype(np.float32))


def damage_rows(store: MemoryStore) -> None:
    """Spoil the last byte of every part that keeps features."""
    for info in list(store.list(feature_prefix(DIGEST))):
        data = store.get(info.key)
        store.put(info.key, data[:-1] + bytes([data[-1] ^ 1]))


@pytest.mark.parametrize("brought", [True, False])
def test_a_damaged_row_is_made_anew(brought: bool, caplog: pytest.LogCaptureFixture) -> None:
    store = MemoryStore()
    world = World(store)
    ids = world.add(withheld(1, [1, 2, 3], DIGEST)) if brought else world.photos(1)
    first = world.ask(ids)
    damage_rows(store)
    assert world.lacking(ids) == {}
    assert np.array_equal(world.ask(ids), first)
    assert "rows of" in caplog.text
    assert "are damaged: made anew" in caplog.text
