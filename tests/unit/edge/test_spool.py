from __future__ import annotations

import errno
import os
import shutil
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from edgeloop.clients.objects import MemoryStore, ObjectStore, StoreUnavailable
from edgeloop.edge.frames import decode, encode, frame, scan
from edgeloop.edge.log import Log
from edgeloop.edge.recent import Recent
from edgeloop.edge.spool import Limits, Spool, SpoolFailed, SpoolFull
from edgeloop.samples.received import read_segment
from edgeloop.samples.records import Label, Sample


def sample(number: int, service: str = "adder", payload: bytes = b"[1.0,2.0]") -> Sample:
    return Sample(
        sample_id=f"{number:064x}",
        service=service,
        device="d",
        node="n",
        captured_at=datetime(2026, 1, 1, tzinfo=UTC),
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


def label(number: int) -> Label:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    return Label(sample_id=f"{number:064x}", service="adder", label="1", source="device", by="d", at=at)


def stored(store: ObjectStore) -> list[str]:
    names: list[str] = []
    for info in store.list("captures"):
        good, bad = read_segment(store.get(info.key), Sample)
        assert not bad
        names += [record.sample_id for record in good]
    return names


def number_of(name: str) -> int:
    return int(name, 16)


# --- frames

bodies = st.lists(st.binary(max_size=60), max_size=8)


@given(bodies, st.integers(0, 500))
def test_a_log_cut_anywhere_keeps_its_whole_frames(parts: list[bytes], cut: int) -> None:
    framed = [frame(p) for p in parts]
    data = b"".join(framed)
    kept = data[: min(cut, len(data))]
    whole, size = 0, 0
    while whole < len(framed) and size + len(framed[whole]) <= len(kept):
        size += len(framed[whole])
        whole += 1
    found = scan(kept)
    assert (found.bodies, found.broken, found.end) == (parts[:whole], [], size)


@given(st.lists(st.binary(min_size=1, max_size=60), min_size=2, max_size=8), st.data())
def test_a_flipped_bit_costs_the_frame_it_is_in_and_no_other(parts: list[bytes], data: st.DataObject) -> None:
    framed = [frame(p) for p in parts]
    hit = data.draw(st.integers(0, len(parts) - 2))
    start = sum(map(len, framed[:hit]))
    position = start + data.draw(st.integers(0, len(framed[hit]) - 1))
    damaged = bytearray(b"".join(framed))
    damaged[position] ^= 1 << data.draw(st.integers(0, 7))
    found = scan(bytes(damaged))
    assert found.bodies == parts[:hit] + parts[hit + 1 :]
    assert found.broken == [(start, start + len(framed[hit]))]


def test_blocks_of_zeros_at_the_end_are_a_tail_never_written() -> None:
    whole = frame(b"one")
    assert scan(whole + b"\0" * 4096).end == len(whole)


@pytest.mark.parametrize("record", [sample(1), sample(2, payload=b"\xff\xd8\x00"), label(3)])
def test_a_record_comes_back_as_it_went(record: Sample | Label) -> None:
    assert decode(encode(record)) == record


@given(st.binary(max_size=80))
def test_foreign_bytes_do_not_decode(body: bytes) -> None:
    with pytest.raises((ValueError, KeyError, TypeError)):
        decode(body)


# --- the log


def test_concurrent_appends_share_syncs_and_each_is_synced_before_it_returns(tmp_path: Path) -> None:
    synced_to, calls = [0], [0]

    def slow_sync(file: int) -> None:
        size = os.fstat(file).st_size
        time.sleep(0.005)
        calls[0] += 1
        synced_to[0] = size

    log = Log(tmp_path / "a.log", fsync=slow_sync)
    late: list[int] = []

    def append() -> None:
        for _ in range(10):
            position = log.write(b"x" * 10)
            log.sync(position)
            if synced_to[0] < position:
                late.append(position)

    threads = [threading.Thread(target=append) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    log.close()
    assert not late
    assert calls[0] <= 40
    assert (tmp_path / "a.log").read_bytes() == b"x" * 800


def test_a_failed_sync_is_nobodys_success(tmp_path: Path) -> None:
    def fail(_file: int) -> None:
        raise OSError(errno.EIO, "broken disk")

    log = Log(tmp_path / "a.log", fsync=fail)
    position = log.write(b"x")
    with pytest.raises(OSError, match="broken disk"):
        log.sync(position)
    with pytest.raises(OSError, match="could not be synced"):
        log.sync(position)


# --- the spool


def test_a_segment_is_cut_by_count_by_bytes_and_by_age(tmp_path: Path) -> None:
    clock = [0.0]
    store = MemoryStore()
    spool = Spool(tmp_path, Limits(samples=3, seconds=60, bytes=4000), clock=lambda: clock[0])
    for number in range(4):
        spool.append(sample(number))
    assert spool.upload(store) == 1 and len(stored(store)) == 3
    spool.append(sample(4, payload=b"x" * 4000))
    assert spool.upload(store) == 1 and len(stored(store)) == 5
    spool.append(sample(5))
    spool.cut()
    assert spool.upload(store) == 0 and spool.samples == 1
    clock[0] = 61
    spool.cut()
    assert spool.upload(store) == 1
    assert sorted(map(number_of, stored(store))) == list(range(6))
    assert (spool.samples, spool.size) == (0, 0)
    spool.close()


def test_services_and_kinds_have_segments_of_their_own(tmp_path: Path) -> None:
    store = MemoryStore()
    spool = Spool(tmp_path)
    spool.append(sample(1, "one"))
    spool.append(sample(2, "two"))
    spool.append(label(1))
    assert spool.counts("one")[0] == 1 and spool.counts("adder")[0] == 1
    spool.cut(everything=True)
    assert spool.upload(store) == 3
    folders = sorted(info.key.rsplit("/", 1)[0] for info in store.list(""))
    assert folders == ["captures/one", "captures/two", "labels/adder"]
    spool.close()


def test_a_full_spool_takes_nothing_more_until_the_store_has_it(tmp_path: Path) -> None:
    spool = Spool(tmp_path, Limits(spool_bytes=2000))
    taken = 0
    with pytest.raises(SpoolFull, match="check the store"):
        for number in range(100):
            spool.append(sample(number))
            taken += 1
    assert 0 < spool.size <= 2000 and spool.refused == 1 and spool.samples == taken
    spool.cut(everything=True)
    spool.upload(MemoryStore())
    spool.append(sample(100))
    spool.close()


def test_a_full_disk_refuses_and_leaves_no_half_frame(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    spool = Spool(tmp_path, clock=lambda: clock[0])
    spool.append(sample(1))
    real = os.write

    written = [0]

    def write_half_then_fail(file: int, data: bytes | memoryview) -> int:
        written[0] += 1
        if written[0] > 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(file, bytes(data)[:20])

    monkeypatch.setattr(os, "write", write_half_then_fail)
    with pytest.raises(SpoolFailed, match="No space left"):
        spool.append(sample(2))
    monkeypatch.setattr(os, "write", real)
    with pytest.raises(SpoolFailed, match="No space left"):
        spool.append(sample(3))  # not tried again at once
    clock[0] = 6
    spool.append(sample(4))
    store = MemoryStore()
    spool.cut(everything=True)
    spool.upload(store)
    assert sorted(map(number_of, stored(store))) == [1, 4]
    assert (spool.refused, spool.corrupt) == (2, 0)
    assert spool.last_error is not None and "No space left" in spool.last_error
    spool.close()


def test_after_a_failed_sync_a_new_log_is_begun(tmp_path: Path) -> None:
    clock, fail = [0.0], [False]

    def sync(file: int) -> None:
        if fail[0]:
            raise OSError(errno.EIO, "Input/output error")
        os.fsync(file)

    spool = Spool(tmp_path, clock=lambda: clock[0], fsync=sync)
    spool.append(sample(1))
    fail[0] = True
    with pytest.raises(SpoolFailed, match="Input/output error"):
        spool.append(sample(2))
    fail[0], clock[0] = False, 6
    spool.append(sample(3))
    store = MemoryStore()
    spool.cut(everything=True)
    spool.upload(store)
    assert {1, 3} <= set(map(number_of, stored(store)))
    assert len(list(store.list("captures"))) == 2
    spool.close()


def test_a_damaged_record_is_set_aside_and_counted_and_the_others_go(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    for number in range(3):
        spool.append(sample(number))
    spool.cut(everything=True)
    spool.close()
    (log,) = tmp_path.glob("*.sealed")
    data = bytearray(log.read_bytes())
    size = len(frame(encode(sample(0))))
    data[size + 30] ^= 0xFF
    log.write_bytes(bytes(data))
    again, store = Spool(tmp_path), MemoryStore()
    again.upload(store)
    assert sorted(map(number_of, stored(store))) == [0, 2]
    assert again.corrupt == 1
    (aside,) = (tmp_path / "aside").iterdir()
    assert len(aside.read_bytes()) == len(frame(encode(sample(1))))
    again.close()


def test_what_was_captured_is_known_after_restart_and_after_upload(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.append(sample(1))
    assert spool.selected(sample(1).sample_id) == "audit"
    spool.close()
    spool = Spool(tmp_path)
    assert spool.selected(sample(1).sample_id) == "audit"
    spool.append(sample(3))
    spool.cut(everything=True)
    spool.upload(MemoryStore())
    spool.close()
    spool = Spool(tmp_path)
    assert spool.selected(sample(1).sample_id) == "audit"
    assert spool.selected(sample(3).sample_id) == "confidence"
    assert spool.selected(sample(2).sample_id) is None
    spool.close()


def test_the_memory_of_samples_is_bounded(tmp_path: Path) -> None:
    recent = Recent(tmp_path / "ids", capacity=10)
    for number in range(35):
        recent.add(sample(number).sample_id, "audit")
        recent.keep([(sample(number).sample_id, "audit")])
    assert recent.get(sample(24).sample_id) is None and recent.get(sample(25).sample_id) == "audit"
    again = Recent(tmp_path / "ids", capacity=10)
    assert [again.get(sample(n).sample_id) for n in (24, 25, 34)] == [None, "audit", "audit"]
    assert sum(f.stat().st_size for f in tmp_path.iterdir()) <= 20 * 33


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


class SpoolMachine(RuleBasedStateMachine):
    """Appends, cuts, uploads that fail at either end, and crashes, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="edgeloop-spool-"))
        self.store = Flaky()
        self.acknowledged: set[str] = set()
        self.count = 0
        self.spool = self.open()

    def open(self) -> Spool:
        return Spool(self.folder, Limits(samples=4))

    @rule(how_many=st.integers(1, 6))
    def append(self, how_many: int) -> None:
        for _ in range(how_many):
            self.count += 1
            self.spool.append(sample(self.count))
            self.acknowledged.add(sample(self.count).sample_id)

    @rule()
    def cut(self) -> None:
        self.spool.cut(everything=True)

    @rule(fail=st.sampled_from([None, "before", "after"]))
    def upload(self, fail: str | None) -> None:
        self.store.fail = fail
        try:
            self.spool.upload(self.store)
        except StoreUnavailable:
            assert fail
        finally:
            self.store.fail = None

    @rule(tail=st.binary(max_size=40), whole=st.booleans())
    def crash(self, tail: bytes, whole: bool) -> None:
        """Nothing is closed; a frame that nobody was told of may be half there."""
        for path in self.folder.glob("*.open"):
            extra = frame(b"never acknowledged" + tail)
            with path.open("ab") as file:
                file.write(extra[: len(extra) // 2] if not whole else b"\0" * len(tail))
        self.spool = self.open()

    @invariant()
    def all_acknowledged_are_known(self) -> None:
        assert all(self.spool.selected(name) for name in self.acknowledged)

    @invariant()
    def no_sample_is_in_two_segments(self) -> None:
        assert max(Counter(stored(self.store)).values(), default=1) == 1

    def teardown(self) -> None:
        try:
            self.spool.cut(everything=True)
            self.spool.upload(self.store)
            assert Counter(stored(self.store)) == Counter(self.acknowledged)
            assert (self.spool.samples, self.spool.size, self.spool.corrupt) == (0, 0, 0)
        finally:
            self.spool.close()
            shutil.rmtree(self.folder)


TestSpoolMachine = SpoolMachine.TestCase
TestSpoolMachine.settings = settings(max_examples=25, stateful_step_count=15, deadline=None)


def test_appends_uploads_and_cuts_at_once_lose_nothing(tmp_path: Path) -> None:
    spool, store = Spool(tmp_path, Limits(samples=7)), MemoryStore()
    stopped = threading.Event()
    errors: list[BaseException] = []

    def guarded(work: Callable[[], None]) -> threading.Thread:
        def body() -> None:
            try:
                work()
            except BaseException as error:
                errors.append(error)

        return threading.Thread(target=body)

    def append(first: int) -> None:
        for number in range(first, first + 50):
            spool.append(sample(number))

    def ship() -> None:
        while not stopped.wait(0.002):
            spool.cut(everything=True)
            spool.upload(store)

    shipper = guarded(ship)
    writers = [guarded(lambda first=n * 50: append(first)) for n in range(6)]  # type: ignore[misc]
    for thread in (shipper, *writers):
        thread.start()
    for thread in writers:
        thread.join()
    stopped.set()
    shipper.join()
    spool.cut(everything=True)
    spool.upload(store)
    assert not errors
    assert sorted(map(number_of, stored(store))) == list(range(300))
    spool.close()
