"""The spool against a real kernel: processes that are killed, a disk that is full, a disk that turns read-only."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from edgeloop.clients.objects import DirectoryStore
from edgeloop.edge.spool.spool import Spool
from tests.unit.edge.spooled import sequence_of, stored, stored_samples

ROOT = Path(__file__).resolve().parents[3]
CHILD = [sys.executable, "-m", "tests.unit.edge.spool_child"]
OWN_MOUNTS = ["unshare", "--map-root-user", "--mount"]


def test_twenty_kills_lose_nothing_and_repeat_nothing(tmp_path: Path) -> None:
    done = subprocess.run(
        [*CHILD, "killed", tmp_path / "spool", tmp_path / "store", "20"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    acknowledged = set(map(int, done.stdout.split()))
    spool, store = Spool(tmp_path / "spool"), DirectoryStore(tmp_path / "store")
    spool.cut(everything=True)
    spool.upload(store)
    names = Counter(stored(store))
    assert len({number // 1_000_000 for number in acknowledged}) == 20
    assert acknowledged <= names.keys() and max(names.values()) == 1
    numbers = list(map(sequence_of, stored_samples(store)))
    assert len(set(numbers)) == len(numbers)
    assert (spool.samples, spool.corrupt) == (0, 0)
    spool.close()


def test_a_disk_that_is_full_and_then_read_only(tmp_path: Path) -> None:
    if subprocess.run([*OWN_MOUNTS, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no mounts of one's own here: run as root or allow user namespaces")
    (tmp_path / "disk").mkdir()
    done = subprocess.run(
        [*OWN_MOUNTS, *CHILD, "small", tmp_path / "disk"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    first, *lines = done.stdout.splitlines()
    taken = int(first.split()[1])
    assert first == f"full {taken} False" and 100 < taken < 350
    assert lines == [
        "sent True True",
        "mended True",
        "refused True False",
        "sent True 0",
        "refused True False",
        "sent True 0",
        "end True 0 0",
    ]
