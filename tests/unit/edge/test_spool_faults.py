"""A spool on a disk that fails: it starts, answers, sends what it can read, and goes on when the disk is mended."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from edgeloop.clients.objects import MemoryStore, StoreUnavailable
from edgeloop.edge.spool import contents
from edgeloop.edge.spool.sending import NoMemory
from edgeloop.edge.spool.spool import Limits, Spool, SpoolFailed, SpoolFull
from edgeloop.samples.records import Record
from edgeloop.samples.segments import write_segment
from tests.unit.edge.faulty_disk import FaultyDisk
from tests.unit.edge.spooled import Flaky, label, sample, stored, stored_labels


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[FaultyDisk]:
    with FaultyDisk(tmp_path) as disk:
        yield disk


def accepts(spool: Spool) -> bool:
    return spool.accepting


def filled(folder: Path, *, samples: int = 3) -> None:
    """Leave three sealed logs of as many samples."""
    spool = Spool(folder, Limits(samples=samples))
    for number in range(3 * samples):
        spool.append(sample(number))
    spool.close()


def test_a_log_that_cannot_be_read_is_set_aside_and_stops_nobody(tmp_path: Path) -> None:
    filled(tmp_path)
    spool, store = Spool(tmp_path), MemoryStore()
    first = min(tmp_path.glob("*.sealed"))
    first.unlink()
    first.mkdir()  # reading it fails, also for root
    assert spool.upload(store) == 2
    assert stored(store) == [3, 4, 5, 6, 7, 8]
    assert (spool.corrupt, spool.samples) == (1, 0)
    assert [path.is_dir() for path in (tmp_path / "aside").iterdir()] == [True]
    spool.close()


def test_a_log_that_cannot_be_read_at_the_start_stops_nobody(tmp_path: Path) -> None:
    filled(tmp_path)
    for name in (min(tmp_path.glob("*.sealed")).name, "captures.adder.000000000009.open"):
        path = tmp_path / name
        path.unlink(missing_ok=True)
        path.mkdir()
    spool, store = Spool(tmp_path), MemoryStore()
    spool.append(sample(9))
    spool.cut(everything=True)
    spool.upload(store)
    assert stored(store) == [3, 4, 5, 6, 7, 8, 9] and spool.corrupt == 2 and spool.accepting
    spool.close()


def test_too_many_open_files_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(tmp_path)
    spool, store = Spool(tmp_path), MemoryStore()
    real = Path.open

    def lacking(path: Path, *args: str, **more: str) -> object:
        if path.name.startswith("captures."):
            raise OSError(errno.EMFILE, "Too many open files")
        return real(path, *args, **more)  # type: ignore[call-overload]

    monkeypatch.setattr(Path, "open", lacking)
    with pytest.raises(OSError, match="Too many open files"):
        spool.upload(store)
    monkeypatch.setattr(Path, "open", real)
    assert spool.upload(store) == 3 and spool.corrupt == 0 and stored(store) == list(range(9))
    spool.close()


def test_a_record_that_fits_in_no_segment_costs_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool, store = Spool(tmp_path), MemoryStore()
    for number in range(5):
        spool.append(sample(number))
    real = write_segment

    def picky(records: list[Record]) -> bytes:
        if any(getattr(record, "sample_id", "").endswith("3") for record in records):
            raise ValueError("no room for a three")
        return real(records)

    monkeypatch.setattr(contents, "write_segment", picky)
    spool.cut(everything=True)
    assert spool.upload(store) == 1
    assert stored(store) == [0, 1, 2, 4] and spool.corrupt == 1 and len(list((tmp_path / "aside").iterdir())) == 1
    spool.close()


def test_no_memory_for_a_segment_leaves_it_for_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool, store = Spool(tmp_path, Limits(samples=1)), MemoryStore()
    spool.append(sample(1))

    def poor(_records: list[Record]) -> bytes:
        raise MemoryError

    with monkeypatch.context() as patched:
        patched.setattr(contents, "write_segment", poor)
        with pytest.raises(NoMemory, match="give the node more"):
            spool.upload(store)
    assert spool.upload(store) == 1 and stored(store) == [1] and spool.corrupt == 0
    spool.close()


def test_a_read_only_disk_at_the_start_takes_nothing_and_sends_what_is_there(disk: FaultyDisk) -> None:
    clock, folder, store = [0.0], disk.folder, MemoryStore()
    filled(folder)
    spool = Spool(folder)
    spool.append(label(1))
    spool.append(sample(9))
    spool.close()
    disk.mode = "read-only"
    spool = Spool(folder, clock=lambda: clock[0])
    assert not accepts(spool) and spool.samples == 11
    with pytest.raises(SpoolFailed, match="Read-only"):
        spool.append(sample(10))
    spool.cut(everything=True)
    assert spool.upload(store) == 5
    assert stored(store) == list(range(10)) and len(stored_labels(store)) == 1
    assert spool.samples == 0 and len(list(folder.glob("captures.*"))) == 4
    assert [spool.upload(store) for _ in range(3)] == [0, 0, 0]  # what the store has is not sent again and again
    clock[0] = 6.0
    spool.cut()
    assert not accepts(spool)
    disk.mode, clock[0] = "", 12.0
    spool.cut()
    assert accepts(spool)
    spool.upload(store)
    assert not list(folder.glob("captures.*")) and not list(folder.glob("labels.*"))
    spool.append(sample(10))
    spool.close()
    assert len(list(store.list(""))) == 5


def test_what_was_sent_from_a_read_only_disk_is_sent_again_as_the_same_object(disk: FaultyDisk) -> None:
    store = MemoryStore()
    spool = Spool(disk.folder)
    spool.append(sample(1))
    disk.mode = "read-only"
    spool.cut(everything=True)
    assert spool.upload(store) == 1
    spool.close()
    disk.mode = ""
    spool = Spool(disk.folder)
    spool.append(sample(2))
    spool.cut(everything=True)
    assert spool.upload(store) == 2 and stored(store) == [1, 2]
    assert not list(disk.folder.glob("captures.*"))
    spool.close()


def test_a_folder_that_cannot_be_made_is_made_later(tmp_path: Path) -> None:
    clock = [0.0]
    (tmp_path / "state").write_text("in the way")
    spool = Spool(tmp_path / "state" / "spool", clock=lambda: clock[0])
    assert not accepts(spool) and (spool.samples, spool.upload(MemoryStore())) == (0, 0)
    with pytest.raises(SpoolFailed, match="free or mend it"):
        spool.append(sample(1))
    spool.cut()
    (tmp_path / "state").unlink()
    clock[0] = 6.0
    spool.cut()
    assert accepts(spool)
    spool.append(sample(1))
    spool.close()


def test_a_failing_disk_is_left_alone_for_a_while(disk: FaultyDisk) -> None:
    clock = [0.0]
    spool = Spool(disk.folder, clock=lambda: clock[0], fsync=disk.sync)
    spool.append(sample(0))
    disk.mode, before = "broken", disk.calls
    for number in range(1, 200):
        clock[0] += 0.1
        with pytest.raises(SpoolFailed):
            spool.append(sample(number))
        spool.cut()
    assert disk.calls - before <= 30 and spool.refused == 199
    disk.mode, clock[0] = "", 100.0
    spool.append(sample(500))
    store = MemoryStore()
    spool.cut(everything=True)
    spool.upload(store)
    assert stored(store) == [0, 500] and spool.accepting
    spool.close()


def test_what_a_failed_sync_left_and_no_cut_took_back_is_not_sent(disk: FaultyDisk) -> None:
    clock, store = [0.0], MemoryStore()
    spool = Spool(disk.folder, clock=lambda: clock[0], fsync=disk.sync)
    spool.append(sample(1))
    disk.mode = "broken"
    with pytest.raises(SpoolFailed):
        spool.append(sample(2))
    disk.mode, clock[0] = "", 6.0
    spool.append(sample(2))
    assert spool.samples == 2
    spool.cut(everything=True)
    assert spool.upload(store) == 2 and stored(store) == [1, 2]
    spool.close()


def with_a_tail(disk: FaultyDisk) -> Spool:
    """A spool with sample 1, and sample 2 in two logs: the sync of the first failed, and so did the cut."""
    clock = [0.0]
    spool = Spool(disk.folder, clock=lambda: clock[0], fsync=disk.sync)
    spool.append(sample(1))
    disk.mode, disk.torn = "broken", 1.0
    with pytest.raises(SpoolFailed):
        spool.append(sample(2))
    disk.mode, clock[0] = "", 6.0
    spool.append(sample(2))
    return spool


def test_a_record_in_two_logs_is_sent_from_the_older(disk: FaultyDisk) -> None:
    spool, store = with_a_tail(disk), MemoryStore()
    disk.cut_power()
    again = Spool(disk.folder, fsync=disk.sync)
    assert again.samples == 2
    again.upload(store)
    assert stored(store) == [1, 2]
    spool.close()
    again.close()


def test_a_tail_that_was_not_sent_does_not_come_back_after_a_restart(disk: FaultyDisk) -> None:
    spool, store = with_a_tail(disk), Flaky()
    store.fail = "after"
    with pytest.raises(StoreUnavailable):
        spool.upload(store)
    disk.cut_power()
    again, store.fail = Spool(disk.folder, fsync=disk.sync), None
    again.upload(store)
    assert stored(store) == [1, 2]
    spool.close()
    again.close()


def test_what_a_failing_disk_keeps_by_itself_counts_until_it_is_let_go(disk: FaultyDisk) -> None:
    clock, store = [0.0], MemoryStore()
    spool = Spool(disk.folder, Limits(spool_bytes=3000), clock=lambda: clock[0], fsync=disk.sync)
    disk.torn = 1.0
    with pytest.raises(SpoolFull):
        for number in range(100):
            disk.mode = "broken" if number % 2 else ""
            with suppress(SpoolFailed):
                spool.append(sample(number))
            clock[0] += 6.0
    assert 2500 < sum(path.stat().st_size for path in disk.folder.glob("captures.*")) <= 3000
    assert spool.size < 2000
    disk.mode = ""
    spool.cut(everything=True)
    spool.upload(store)
    assert not any(disk.folder.glob("captures.*"))
    spool.append(sample(100))
    assert spool.samples == 1
    spool.close()


def test_a_log_whose_name_is_not_sure_is_not_left_there(disk: FaultyDisk) -> None:
    clock = [0.0]
    spool = Spool(disk.folder, clock=lambda: clock[0], fsync=disk.sync)
    disk.mode = "broken"
    for number in range(3):
        with pytest.raises(SpoolFailed):
            spool.append(sample(number))
        clock[0] += 6.0
    assert not any(disk.folder.glob("captures.*"))
    spool.close()


def test_a_full_disk_takes_again_when_it_has_room(disk: FaultyDisk) -> None:
    clock, store = [0.0], MemoryStore()
    spool = Spool(disk.folder, clock=lambda: clock[0])
    for number in range(5):
        spool.append(sample(number))
    disk.mode = "full"
    with pytest.raises(SpoolFailed, match="No space left"):
        spool.append(sample(5))
    assert not accepts(spool) and spool.samples == 5
    spool.cut(everything=True)
    assert spool.upload(store) == 1 and stored(store) == [0, 1, 2, 3, 4]
    clock[0] = 6.0
    spool.cut()
    assert not accepts(spool)
    disk.mode, clock[0] = "", 12.0
    spool.cut()
    assert accepts(spool)
    spool.append(sample(5))
    spool.close()


def test_jumps_of_the_wall_clock_change_nothing_and_a_suspended_machine_cuts_early(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    spool = Spool(tmp_path, Limits(seconds=60), clock=lambda: clock[0])
    spool.append(sample(1))
    for wall in (0.0, 1e12):
        monkeypatch.setattr("time.time", lambda wall=wall: wall)
        spool.cut()
    assert len(list(tmp_path.glob("*.open"))) == 1
    clock[0] = 1e6
    spool.cut()
    assert not list(tmp_path.glob("*.open")) and spool.samples == 1
    spool.close()


def test_what_was_being_written_beside_is_swept_at_the_start(tmp_path: Path) -> None:
    filled(tmp_path)
    (tmp_path / "captures.adder.000000000001.sealed.tmp").write_bytes(b"half")
    spool = Spool(tmp_path)
    assert spool.samples == 9 and not list(tmp_path.glob("*.tmp"))
    assert os.listdir(tmp_path)
    spool.close()
