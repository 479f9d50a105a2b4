"""Blobs come whole or not at all, go on where they were cut off, several at a time, and no faster than allowed."""

from __future__ import annotations

import errno
import os
import shutil
import threading
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeloop.clients.objects import MemoryStore, StoreUnavailable
from edgeloop.edge.releases.blobs import Blobs
from edgeloop.edge.releases.downloads import RESERVE, Allowance, CorruptBlob, DamagedTransfer, DiskFull, Downloads
from edgeloop.samples.records import digest, hexdigest
from edgeloop.samples.releases import Layer, Release, blob_key
from tests.contract.stores import at_once


class Link(MemoryStore):
    """A store behind a link that can be cut after so many reads, and can change what comes."""

    def __init__(self) -> None:
        super().__init__()
        self.ranges: list[tuple[int, int]] = []
        self.reads_left = 1_000_000
        self.damage: Callable[[bytes], bytes] = lambda data: data
        self.gate: threading.Barrier | None = None

    def get_range(self, key: str, start: int, end: int) -> bytes:
        if self.reads_left == 0:
            raise StoreUnavailable("memory", "cut")
        self.reads_left -= 1
        self.ranges.append((start, end))
        if self.gate is not None:
            self.gate.wait(10)
        return self.damage(super().get_range(key, start, end))


class Site:
    def __init__(self, folder: Path, rate: int | None = None) -> None:
        self.folder = folder
        self.store = Link()
        self.pauses: list[float] = []
        self.blobs = Blobs(folder, Downloads(rate, sleep=self.pauses.append))

    def layer(self, data: bytes) -> Layer:
        self.store.put(blob_key(digest(data)), data)
        return Layer(role="model", digest=digest(data), size=len(data), media_type="x")

    def path(self, layer: Layer, suffix: str = "") -> Path:
        return self.folder / "blobs" / "sha256" / f"{hexdigest(layer.digest)}{suffix}"


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def content(size: int, seed: int = 0) -> bytes:
    return bytes((n * 31 + seed + n // 251) % 256 for n in range(size))


def test_only_what_is_lacking_is_fetched(site: Site) -> None:
    layers = [site.layer(content(100, n)) for n in range(3)]
    assert site.blobs.fetch(site.store, layers[:2]) == {la.digest: content(100, n) for n, la in enumerate(layers[:2])}
    site.store.ranges.clear()
    assert set(site.blobs.fetch(site.store, layers)) == {la.digest for la in layers}
    assert len(site.store.ranges) == 1
    assert not list(site.path(layers[0]).parent.glob("*.part"))


def test_a_download_that_was_cut_off_goes_on_where_it_was(tmp_path: Path) -> None:
    site = Site(tmp_path, rate=400_000)  # in chunks of 100,000 bytes
    layer = site.layer(content(450_000))
    site.store.reads_left = 3
    with pytest.raises(StoreUnavailable):
        site.blobs.fetch(site.store, [layer])
    assert site.path(layer, ".part").stat().st_size == 300_000 and not site.path(layer).exists()
    site.store.reads_left = 10
    again = Blobs(tmp_path, Downloads(400_000, sleep=lambda _: None))  # also after a kill
    assert again.fetch(site.store, [layer])[layer.digest] == content(450_000)
    assert site.store.ranges == [(n, min(n + 100_000, 450_000)) for n in range(0, 450_000, 100_000)]


@given(left=st.binary(max_size=80))
def test_whatever_was_left_behind_the_blob_is_whole_in_the_end(
    tmp_path_factory: pytest.TempPathFactory, left: bytes
) -> None:
    site = Site(tmp_path_factory.mktemp("left"))
    layer = site.layer(content(60))
    site.path(layer).parent.mkdir(parents=True)
    site.path(layer, ".part").write_bytes(left)
    assert site.blobs.fetch(site.store, [layer])[layer.digest] == content(60)


@pytest.mark.parametrize("fault", ["flipped", "truncated", "empty"])
def test_wrong_bytes_in_the_store_are_told_from_a_bad_link(site: Site, fault: str) -> None:
    layer = site.layer(content(1000))
    wrong = {"flipped": b"\x00" + content(1000)[1:-1] + b"\x00", "truncated": content(1000)[:-1], "empty": b""}[fault]
    site.store.put(blob_key(layer.digest), wrong)
    with pytest.raises(CorruptBlob, match=f"blob {layer.digest} of 1000 bytes came as .* of {len(wrong)}: release"):
        site.blobs.fetch(site.store, [layer])
    assert not site.path(layer).exists() and not site.path(layer, ".part").exists()


def test_a_link_that_damages_once_is_tried_again(site: Site) -> None:
    layer = site.layer(content(1000))
    times = iter([1])
    site.store.damage = lambda data: data[:-1] + b"?" if next(times, None) else data
    assert site.blobs.fetch(site.store, [layer])[layer.digest] == content(1000)
    assert len(site.store.ranges) == 2


def test_a_link_that_always_damages_is_not_the_stores_fault(site: Site) -> None:
    layer = site.layer(content(1000))
    counter = iter(range(100))
    site.store.damage = lambda data: data[:-1] + bytes([next(counter)])
    with pytest.raises(DamagedTransfer, match="each time differently"):
        site.blobs.fetch(site.store, [layer])
    assert len(site.store.ranges) == 4 and max(site.pauses) > 1
    assert not site.path(layer).exists()


def test_four_are_fetched_at_once_and_one_that_fails_does_not_lose_the_others(site: Site) -> None:
    layers = [site.layer(content(100, n)) for n in range(4)]
    site.store.gate = threading.Barrier(4)  # passes only when four read at the same time
    assert len(site.blobs.fetch(site.store, layers)) == 4
    site.store.gate = None
    others = [site.layer(content(100, n)) for n in range(10, 14)]
    site.store.delete(blob_key(others[1].digest))
    with pytest.raises(Exception, match=hexdigest(others[1].digest)):
        site.blobs.fetch(site.store, others)
    assert site.path(others[0]).exists()


def test_a_backbone_that_two_services_share_is_fetched_once(site: Site) -> None:
    layer = site.layer(content(100_000))
    found = at_once(lambda _: site.blobs.fetch(site.store, [layer])[layer.digest], 8)
    assert found == [content(100_000)] * 8
    assert site.store.ranges == [(0, 100_000)]


def test_blobs_on_the_disk_are_checked_before_they_are_used(site: Site) -> None:
    layer = site.layer(content(100))
    site.blobs.fetch(site.store, [layer])
    site.path(layer).write_bytes(b"rotten")
    assert site.blobs.read(layer.digest) is None and not site.path(layer).exists()
    assert site.blobs.fetch(site.store, [layer])[layer.digest] == content(100)


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The free bytes of the disk, to be set."""
    told = [10**12]
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=told[0], total=10**12))
    return told


def test_what_would_fill_the_disk_is_not_begun(site: Site, free: list[int]) -> None:
    layers = [site.layer(content(60, n)) for n in range(3)]
    site.blobs.fetch(site.store, layers[:1])
    site.path(layers[1], ".part").write_bytes(content(60, 1)[:20])
    site.store.ranges.clear()
    free[0] = RESERVE + 99
    with pytest.raises(DiskFull, match="100 bytes more"):  # of two blobs, one of which is here to a third
        site.blobs.fetch(site.store, layers)
    assert not site.store.ranges and not site.path(layers[2], ".part").exists()
    free[0] = RESERVE + 100
    assert len(site.blobs.fetch(site.store, layers)) == 3


def test_what_is_here_needs_no_room(site: Site, free: list[int]) -> None:
    layer = site.layer(content(60))
    site.blobs.fetch(site.store, [layer])
    free[0] = 0
    assert site.blobs.fetch(site.store, [layer]) == {layer.digest: content(60)}


def test_a_small_disk_keeps_a_sixteenth(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    layer = site.layer(content(60))
    for free, fits in ((159, False), (160, True)):
        monkeypatch.setattr(shutil, "disk_usage", lambda _, free=free: SimpleNamespace(free=free, total=1600))
        with nullcontext() if fits else pytest.raises(DiskFull, match="100 are to stay free"):
            site.blobs.fetch(site.store, [layer])


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_disk_that_fills_up_meanwhile_gets_its_room_back(
    site: Site, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    layer = site.layer(content(60))

    def full(_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DiskFull, match=layer.digest):
        site.blobs.fetch(site.store, [layer])
    assert not list(site.path(layer).parent.iterdir())


def test_another_failure_of_the_disk_keeps_what_came(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    layer = site.layer(content(60))

    def broken(_: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(OSError, match="Input/output"):
        site.blobs.fetch(site.store, [layer])
    assert site.path(layer, ".part").stat().st_size == 60


def test_a_sweep_leaves_what_is_on_its_way(site: Site) -> None:
    mine, others = site.layer(content(10)), site.layer(content(10, 1))
    release = Release(service="s", version="1", run_id="r", dataset="d", layers=[mine])
    site.blobs.keep(release)
    site.path(mine).parent.mkdir(parents=True)
    for layer in (mine, others):
        site.path(layer, ".part").write_bytes(b"half")
    site.blobs.sweep({release.digest, "sha256:unknown"})
    assert site.path(mine, ".part").exists() and not site.path(others, ".part").exists()
    assert site.blobs.newest("s") == [release.digest] and site.blobs.newest("t") == []
    site.blobs.sweep(set())
    assert not site.path(mine, ".part").exists() and site.blobs.manifest(release.digest) is None


@given(
    rate=st.integers(1024, 10**8),
    asked=st.lists(st.integers(1, 10**6), min_size=1, max_size=30),
    gaps=st.lists(st.floats(0, 5), min_size=30, max_size=30),
)
def test_no_more_bytes_than_allowed(rate: int, asked: list[int], gaps: list[float]) -> None:
    time = [0.0]

    def sleep(seconds: float) -> None:
        time[0] += seconds

    allowance = Allowance(rate, clock=lambda: time[0], sleep=sleep)
    passed = 0
    for count, gap in zip(asked, gaps, strict=False):
        allowance.take(count)
        assert passed <= rate * time[0] * (1 + 1e-9) + 1e-6  # what was asked for before has had its time
        passed += count
        time[0] += gap
    assert time[0] <= sum(asked) / rate + sum(gaps) + 1e-6


def test_without_a_limit_nothing_waits() -> None:
    allowance = Allowance(None, sleep=lambda _: pytest.fail("waited"))
    allowance.take(10**12)
    assert allowance.chunk == 1024 * 1024


def test_a_sweep_by_another_service_leaves_what_is_being_fetched(site: Site) -> None:
    """What was refused for a while is not to be kept, and is fetched again at this moment."""
    one, two = site.layer(content(5000)), site.layer(content(3_000_000, 1))
    release = Release(service="rater", version="1", run_id="r", dataset="d", layers=[one, two])
    site.blobs.keep(release)

    def sweeping() -> bool:
        site.blobs.sweep([])
        return True

    site.blobs.bring(site.store, [one, two], sweeping)
    assert site.path(one).exists() and site.path(two).exists()
    site.blobs.sweep([])
    assert not site.path(one).exists()
