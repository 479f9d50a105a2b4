"""Few threads while work is quick, more when it is stuck, and one wait for the disk per batch."""

from __future__ import annotations

import logging
import threading
from queue import SimpleQueue

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeloop.edge.mqtt.workers import Finish, Workers
from tests.servers.ports import wait_until

pytestmark = pytest.mark.timeout(300)


def test_everything_put_is_begun_once_and_finished_once_in_any_load() -> None:
    begun, finished = SimpleQueue[int](), SimpleQueue[int]()

    def begin(item: int) -> Finish:
        begun.put(item)
        return lambda: finished.put(item)

    workers: Workers[int] = Workers(begin, 4, "t")

    def put_some(first: int) -> None:
        for item in range(first, first + 1000):
            workers.put(item)

    threads = [threading.Thread(target=put_some, args=(first,)) for first in (0, 1000, 2000)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(finished.get(timeout=10) for _ in range(3000)) == list(range(3000))
    assert begun.qsize() == 3000 and finished.empty()
    wait_until("nobody watches when there is nothing to do", lambda: workers.idle)
    workers.stop()


def test_a_stuck_item_holds_up_no_other() -> None:
    gate, done = threading.Event(), SimpleQueue[int]()

    def begin(item: int) -> None:
        if item < 3:
            gate.wait(20)
        done.put(item)

    workers: Workers[int] = Workers(begin, 4, "t")
    for item in range(10):
        workers.put(item)
    assert [done.get(timeout=10) for _ in range(7)] == list(range(3, 10))
    gate.set()
    assert sorted(done.get(timeout=10) for _ in range(3)) == [0, 1, 2]
    workers.stop()


def test_no_more_than_the_bound_are_stuck_at_once() -> None:
    gate, started = threading.Event(), SimpleQueue[int]()

    def begin(item: int) -> None:
        started.put(item)
        gate.wait(20)

    workers: Workers[int] = Workers(begin, 3, "t")
    for item in range(8):
        workers.put(item)
    wait_until("three are begun", lambda: started.qsize() == 3)
    assert len(workers) == 5
    gate.set()
    wait_until("all are begun", lambda: started.qsize() == 8)
    workers.stop()


def test_what_is_queued_while_one_waits_for_the_disk_is_finished_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgeloop.edge.mqtt.workers.BATCH_SECONDS", 60)
    syncs, batches, disk = list[int](), SimpleQueue[int](), threading.Event()

    def begin(item: int) -> Finish:
        batches.put(item)

        def finish() -> None:
            disk.wait(60)
            syncs.append(item)

        return finish

    workers: Workers[int] = Workers(begin, 2, "t")
    workers.put(0)
    wait_until("the first waits for the disk", lambda: batches.qsize() == 1)
    with workers._free:  # nobody begins one before all are queued
        for item in range(1, 30):
            workers.put(item)
    wait_until("the second worker has begun all others", lambda: batches.qsize() == 30)
    assert not syncs
    disk.set()
    wait_until("all are finished", lambda: len(syncs) == 30)
    workers.stop()


def test_an_item_that_fails_ends_no_worker(caplog: pytest.LogCaptureFixture) -> None:
    done: SimpleQueue[int] = SimpleQueue()

    def begin(item: int) -> Finish | None:
        if item % 3 == 0:
            raise RuntimeError("bad item")
        if item % 3 == 1:
            return lambda: [][0]
        done.put(item)
        return None

    workers: Workers[int] = Workers(begin, 2, "t")
    with caplog.at_level(logging.ERROR):
        for item in range(9):
            workers.put(item)
        assert sorted(done.get(timeout=60) for _ in range(3)) == [2, 5, 8]
        wait_until("all failures are logged", lambda: len(caplog.records) == 6)
    workers.stop()


def test_stopping_begins_what_is_queued_and_ends_the_threads() -> None:
    gate, done = threading.Event(), SimpleQueue[int]()

    def begin(item: int) -> None:
        gate.wait(20)
        done.put(item)

    workers: Workers[int] = Workers(begin, 2, "stopping")
    for item in range(5):
        workers.put(item)
    workers.stop()
    gate.set()
    assert sorted(done.get(timeout=10) for _ in range(5)) == list(range(5))
    wait_until("the threads end", lambda: not [t for t in threading.enumerate() if t.name.startswith("stopping-")])


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 5), st.lists(st.sampled_from(["quick", "slow", "none", "fails"]), max_size=60))
def test_any_mixture_is_served_whole(most: int, kinds: list[str]) -> None:
    done: SimpleQueue[int] = SimpleQueue()
    pause = threading.Event()

    def begin(item: int) -> Finish | None:
        if kinds[item] == "slow":
            pause.wait(0.003)
        if kinds[item] == "none":
            done.put(item)
            return None
        return lambda: done.put(item)

    workers: Workers[int] = Workers(begin, most, "t")
    for item in range(len(kinds)):
        workers.put(item)
    assert sorted(done.get(timeout=10) for _ in kinds) == list(range(len(kinds)))
    workers.stop()
