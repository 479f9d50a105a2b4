"""The log: many writers, few syncs, and what a failed one leaves."""

from __future__ import annotations

import errno
import os
import threading
import time
from pathlib import Path

import pytest

from edgeloop.edge.spool.log import Log


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


def test_what_a_failed_sync_left_does_not_come_back(tmp_path: Path) -> None:
    failing: list[bool] = []

    def sync(_file: int) -> None:
        if failing:
            raise OSError(errno.EIO, "broken disk")

    log = Log(tmp_path / "a.log", fsync=sync)
    log.sync(log.write(b"sure"))
    failing.append(True)
    position = log.write(b"unsure")
    with pytest.raises(OSError, match="broken disk"):
        log.sync(position)
    with pytest.raises(OSError, match="could not be synced"):
        log.write(b"more")
    log.close()
    assert (tmp_path / "a.log").read_bytes() == b"sure" and log.durable == 4
