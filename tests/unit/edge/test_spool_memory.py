"""What a spool remembers: samples and labels that were taken, and the number of the next sample."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from edgeloop.clients.objects import MemoryStore
from edgeloop.edge.spool.recent import Recent, RecentLabels
from edgeloop.edge.spool.sequence import Sequence
from edgeloop.edge.spool.spool import Limits, Spool
from edgeloop.samples.records import Sample
from tests.unit.edge.spooled import AT, label, sample, sequence_of, stored, stored_labels, stored_samples

RULES = ["audit", "confidence", "threshold", "margin", "entropy", "cross-entropy", "ibt", "novelty"]


def test_the_memory_of_samples_is_bounded(tmp_path: Path) -> None:
    recent = Recent(tmp_path / "ids", capacity=10)
    for number in range(35):
        recent.add(sample(number).sample_id, "audit")
        recent.keep([(sample(number).sample_id, "audit")])
    assert recent.get(sample(24).sample_id) is None and recent.get(sample(25).sample_id) == "audit"
    again = Recent(tmp_path / "ids", capacity=10)
    assert [again.get(sample(n).sample_id) for n in (24, 25, 34)] == [None, "audit", "audit"]
    assert sum(f.stat().st_size for f in tmp_path.iterdir()) <= 20 * 33


def test_every_rule_comes_back_after_an_upload_and_a_restart(tmp_path: Path) -> None:
    recent = Recent(tmp_path / "ids")
    recent.keep([(sample(n).sample_id, by) for n, by in enumerate([*RULES, "a-rule-of-tomorrow"])])
    again = Recent(tmp_path / "ids")
    assert [again.get(sample(n).sample_id) for n in range(9)] == [*RULES, "other"]


def test_a_file_of_before_there_were_rules_is_read(tmp_path: Path) -> None:
    ids = [bytes.fromhex(sample(n).sample_id) for n in (1, 2)]
    (tmp_path / "ids").write_bytes(ids[0] + b"a" + ids[1] + b"c" + b"torn")
    recent = Recent(tmp_path / "ids")
    assert [recent.get(sample(n).sample_id) for n in (1, 2, 3)] == ["audit", "confidence", None]


def test_names_that_a_disk_did_not_take_are_written_with_the_next(tmp_path: Path) -> None:
    (tmp_path / "ids").mkdir()
    recent = Recent(tmp_path / "ids")
    recent.keep([(sample(1).sample_id, "audit")])
    (tmp_path / "ids").rmdir()
    recent.keep([(sample(2).sample_id, "audit")])
    again = Recent(tmp_path / "ids")
    assert [again.get(sample(n).sample_id) for n in (1, 2)] == ["audit", "audit"]


def test_a_sample_that_is_known_is_not_written_again(tmp_path: Path) -> None:
    spool, store = Spool(tmp_path), MemoryStore()
    assert not spool.is_known(sample(1).sample_id)
    for _ in range(3):
        spool.append(sample(1))
        spool.cut(everything=True)
        spool.upload(store)
    assert spool.is_known(sample(1).sample_id) and stored(store) == [1]
    spool.close()
    spool = Spool(tmp_path)
    spool.append(sample(1))
    assert spool.samples == 0
    spool.close()


def test_one_sample_from_many_threads_is_taken_once(tmp_path: Path) -> None:
    slow = threading.Event()

    def sync(file: int) -> None:
        slow.wait(0.05)
        os.fsync(file)

    spool, store = Spool(tmp_path, fsync=sync), MemoryStore()
    with ThreadPoolExecutor(8) as pool:
        told = list(pool.map(lambda n: spool.append(sample(1)), range(8)))
    assert spool.samples == 1 and sorted(told) == [False] * 7 + [True]
    spool.cut(everything=True)
    spool.upload(store)
    assert stored(store) == [1]
    spool.close()


def test_a_label_said_again_is_taken_once_and_a_change_of_mind_is_kept(tmp_path: Path) -> None:
    spool, store = Spool(tmp_path), MemoryStore()
    for hour, (said, is_new) in enumerate([("1", True), ("1", False), ("2", True), ("2", False), ("1", True)]):
        at = {"at": AT.replace(hour=hour)}
        assert spool.append(label(1, said).model_copy(update=at)) is is_new
        spool.append(label(1, said, by="e").model_copy(update=at))
        spool.cut(everything=True)
    spool.upload(store)
    kept = [(each.by, each.label) for each in stored_labels(store)]
    assert sorted(kept) == sorted([(by, text) for by in "de" for text in "121"])
    spool.close()


def test_a_label_that_waits_is_known_after_a_restart(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.append(label(1))
    spool.close()
    spool = Spool(tmp_path)
    spool.append(label(1))
    assert spool.samples == 1
    spool.close()


def test_the_memory_of_labels_is_bounded() -> None:
    labels = RecentLabels(capacity=3)
    for number in range(5):
        labels.add(label(number))
    assert [label(number) in labels for number in range(5)] == [False, False, True, True, True]


def test_numbers_never_go_back(tmp_path: Path) -> None:
    taken: list[int] = []
    for clean in (True, False, False, True, True):
        sequence = Sequence(tmp_path / "sequence")
        taken += [sequence.take() for _ in range(1500 if clean else 3)]
        if clean:
            sequence.close()
    assert taken == sorted(set(taken))
    assert taken[1499:1502] == [1499, 1500, 1501]


def test_numbers_from_many_threads_are_all_different(tmp_path: Path) -> None:
    sequence = Sequence(tmp_path / "sequence")
    taken: list[int] = []

    def take() -> None:
        taken.extend([sequence.take() for _ in range(700)])

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken) == list(range(2800))


@pytest.mark.parametrize("text", [b"", b"12", b"1000 00000000\n", b"\xff\xff"])
def test_a_damaged_sequence_file_makes_numbers_jump_ahead(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "sequence").write_bytes(text)
    assert Sequence(tmp_path / "sequence", wall=lambda: 5.0).take() == 5_000_000


def test_a_lost_sequence_file_is_made_up_for_by_what_waits(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    for number in range(5):
        spool.append(sample(number))
    spool.close()
    (tmp_path / "sequence").unlink()
    spool, store = Spool(tmp_path), MemoryStore()
    spool.append(sample(5))
    spool.cut(everything=True)
    spool.upload(store)
    assert sorted(map(sequence_of, stored_samples(store))) == [0, 1, 2, 3, 4, 5]
    spool.close()


def test_fields_that_nobody_knows_reach_the_store(tmp_path: Path) -> None:
    spool, store = Spool(tmp_path, Limits(samples=1)), MemoryStore()
    record = Sample.model_validate(dict(sample(1)) | {"payload": b"", "payload_digest": "sha256:x", "clock_skew": True})
    spool.append(record, 0.5)
    spool.upload(store)
    (back,) = stored_samples(store)
    assert back.__pydantic_extra__ == {"payload_digest": "sha256:x", "clock_skew": True, "sequence": 0}
    assert back.payload == b"" and back.sample_id == record.sample_id
    spool.close()
