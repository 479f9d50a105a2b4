"""The spool: cutting, sending, failing disks, damage, and what it remembers."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from edgeloop.clients.objects import BucketMissing, MemoryStore, StoreDenied
from edgeloop.edge.spool.frames import encode, frame
from edgeloop.edge.spool.spool import Limits, Spool, SpoolFailed, SpoolFull
from edgeloop.errors import BadInput
from tests.unit.edge.spooled import label, sample, stored


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
    assert stored(store) == list(range(6))
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


class Picky(MemoryStore):
    """A store whose policy refuses some folders."""

    def __init__(self, error: Callable[[str], Exception], *folders: str) -> None:
        super().__init__()
        self.error = error
        self.folders = folders
        self.asked: list[str] = []

    def create(self, key: str, data: bytes) -> bool:
        self.asked.append(key)
        if key.startswith(self.folders):
            raise self.error(key)
        return super().create(key, data)


def denied(key: str) -> Exception:
    return StoreDenied("memory:", key, "HTTP 403 AccessDenied")


def unusable(key: str) -> Exception:
    return BadInput(f"key {key!r} cannot be used: choose another")


@pytest.mark.parametrize("error", [denied, unusable])
def test_one_service_that_the_store_refuses_does_not_stop_the_others(
    tmp_path: Path, error: Callable[[str], Exception]
) -> None:
    store = Picky(error, "captures/bad/", "captures/worse/")
    spool = Spool(tmp_path, Limits(samples=1))
    for number, service in enumerate(["bad", "bad", "good", "worse", "good"]):
        spool.append(sample(number, service))
    spool.append(label(9))
    with pytest.raises(type(error("")), match="captures/bad/"):
        spool.upload(store)
    assert stored(store) == [2, 4] and spool.counts("adder") == (0, 0)
    assert [spool.counts(service)[0] for service in ("bad", "worse")] == [2, 1]
    assert len(store.asked) == 5  # a service that is refused is asked about once
    store.folders = ("captures/worse/",)
    with pytest.raises(type(error("")), match="captures/worse/"):
        spool.upload(store)
    assert stored(store) == [0, 1, 2, 4]
    spool.close()


def test_only_the_first_log_of_a_refused_service_is_pinned(tmp_path: Path) -> None:
    spool = Spool(tmp_path, Limits(samples=1))
    for number in range(3):
        spool.append(sample(number, "bad"))
    with pytest.raises(StoreDenied):
        spool.upload(Picky(denied, "captures/bad/"))
    assert len(list(tmp_path.glob("*.sending"))) == 1
    spool.close()


def test_a_store_without_its_bucket_is_asked_once(tmp_path: Path) -> None:
    store = Picky(lambda _: BucketMissing("memory:", "b"), "captures/")
    spool = Spool(tmp_path, Limits(samples=1))
    for service in ("one", "two"):
        spool.append(sample(1 + len(service), service))
    with pytest.raises(BucketMissing):
        spool.upload(store)
    assert len(store.asked) == 1
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


def error_of(spool: Spool) -> str | None:
    return spool.last_error


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
    assert "No space left" in (error_of(spool) or "")
    clock[0] = 6
    spool.append(sample(4))
    assert error_of(spool) is None
    store = MemoryStore()
    spool.cut(everything=True)
    spool.upload(store)
    assert stored(store) == [1, 4]
    assert (spool.refused, spool.corrupt) == (2, 0)
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
    assert {1, 3} <= set(stored(store))
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
    size = len(frame(encode(sample(0), 0)))
    data[size + 30] ^= 0xFF
    log.write_bytes(bytes(data))
    again, store = Spool(tmp_path), MemoryStore()
    again.upload(store)
    assert stored(store) == [0, 2]
    assert again.corrupt == 1
    (aside,) = (tmp_path / "aside").iterdir()
    assert len(aside.read_bytes()) == len(frame(encode(sample(1), 1)))
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
    assert stored(store) == list(range(300))
    spool.close()
