"""The spool under everything at once: appends, cuts, uploads that fail, a bound that drops, failing disks, power cuts.

Whatever the order: what was acknowledged is in the store once at the end, unless it was dropped as the least
valuable; nothing is there twice; sequence numbers grow.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from edgeloop.clients.objects import StoreUnavailable
from edgeloop.edge.spool.spool import Limits, Spool, SpoolFailed, SpoolFull
from edgeloop.edge.spool.tiers import TIERS, tier_of
from tests.unit.edge.faulty_disk import FaultyDisk, PowerCut
from tests.unit.edge.spooled import (
    Flaky,
    label,
    number_of,
    sample,
    samples_in,
    sequence_of,
    stored,
    stored_labels,
    stored_samples,
)

_LIMITS = Limits(samples=4, spool_bytes=6000)
_PAUSE = 6.0
steps = st.integers(1, 25)
values = st.floats(0, 1)


class SpoolMachine(RuleBasedStateMachine):
    """What the outside knows (``acknowledged``, ``gone``) against what the disk and the store hold."""

    def __init__(self) -> None:
        super().__init__()
        logging.disable(logging.CRITICAL)
        self.folder = Path(tempfile.mkdtemp(prefix="edgeloop-spool-"))
        self.disk = FaultyDisk(self.folder)
        self.disk.__enter__()
        self.store = Flaky()
        self.time = 0.0
        self.was_faulty = False
        self.count = 0
        self.acknowledged: dict[int, int] = {}
        """Tier by number, in the order in which they were taken."""
        self.labels: set[int] = set()
        self.gone: set[int] = set()
        self.refused: set[int] = set()
        self.unmarked: set[int] = set()
        self.again: set[int] = set()
        """Sent again after it was refused; it may have been written the first time."""
        self.tiers: dict[int, float] = {}
        self.spool = self.open()

    def open(self) -> Spool:
        return Spool(self.folder, _LIMITS, clock=lambda: self.time, fsync=self.disk.sync)

    # --- what the node does

    @rule(values=st.lists(values, min_size=1, max_size=5), size=st.sampled_from([9, 9, 400]))
    def append(self, values: list[float], size: int) -> None:
        for value in values:
            self.count += 1
            self.tiers[self.count] = value
            self.offer(self.count, size)

    @precondition(lambda self: self.refused)
    @rule(data=st.data())
    def offer_again(self, data: st.DataObject) -> None:
        """A sample that was not taken is sent again, and taken once."""
        number = data.draw(st.sampled_from(sorted(self.refused)))
        self.again.add(number)
        if self.spool.is_known(sample(number).sample_id) and number not in samples_in(self.folder):
            self.gone.add(number)  # written by an append that was cut off, and dropped or sent since
        self.offer(number, 9)

    @precondition(lambda self: self.known())
    @rule(data=st.data())
    def repeat(self, data: st.DataObject) -> None:
        """A sample that was taken is sent again: nothing is written."""
        number = data.draw(st.sampled_from(sorted(self.known())))
        before = self.spool.samples
        self.spool.append(sample(number))
        assert self.spool.samples == before

    @rule()
    def say(self) -> None:
        self.count += 1
        for _ in range(2):
            with suppress(SpoolFailed, SpoolFull):
                self.spool.append(label(self.count))
                self.labels.add(self.count)
            self.settle(arriving=TIERS)

    def offer(self, number: int, size: int) -> None:
        value = self.tiers[number]
        waiting = samples_in(self.folder)
        try:
            self.spool.append(sample(number, payload=b"x" * size), value)
        except SpoolFailed:
            self.refused.add(number)
        except SpoolFull:
            self.refused.add(number)
            assert samples_in(self.folder) == waiting
        else:
            self.refused.discard(number)
            self.acknowledged[number] = tier_of(value)
        self.settle(arriving=tier_of(value))

    @rule()
    def cut(self) -> None:
        self.spool.cut(everything=True)
        self.settle(arriving=TIERS)

    @rule(fail=st.sampled_from([None, None, "before", "after"]))
    def upload(self, fail: str | None) -> None:
        self.note_unmarked()
        self.store.fail = fail
        try:
            self.spool.upload(self.store)
        except StoreUnavailable:
            assert fail
        finally:
            self.store.fail = None

    # --- what happens to it

    def note_unmarked(self) -> None:
        """A disk that takes no rename cannot note that a log was offered; after a restart it is not pinned."""
        if self.disk.mode == "read-only":
            self.unmarked |= samples_in(self.folder).keys()

    @rule(mode=st.sampled_from(["", "", "full", "read-only", "broken"]))
    def turn(self, mode: str) -> None:
        self.disk.mode = mode
        self.was_faulty = self.was_faulty or bool(mode)
        self.time += _PAUSE

    @rule(torn=st.floats(0, 1))
    def crash(self, torn: float) -> None:
        self.disk.torn = torn
        self.power_cut()

    @rule(torn=st.floats(0, 1), after=steps, value=values)
    def crash_while_appending(self, torn: float, after: int, value: float) -> None:
        self.count += 1
        self.tiers[self.count] = value
        self.refused.add(self.count)
        self.crash_in(torn, after, lambda: self.spool.append(sample(self.count), value), arriving=tier_of(value))

    @rule(torn=st.floats(0, 1), after=steps)
    def crash_while_cutting(self, torn: float, after: int) -> None:
        self.crash_in(torn, after, lambda: self.spool.cut(everything=True), arriving=TIERS)

    @rule(torn=st.floats(0, 1), after=steps)
    def crash_while_uploading(self, torn: float, after: int) -> None:
        self.note_unmarked()
        self.crash_in(torn, after, lambda: self.spool.upload(self.store), arriving=0)

    @rule(torn=st.floats(0, 1), after=steps)
    def crash_while_starting(self, torn: float, after: int) -> None:
        self.power_cut()
        self.crash_in(torn, after, self.reopen, arriving=0)

    def reopen(self) -> None:
        self.spool = self.open()

    def crash_in(self, torn: float, after: int, work: Any, *, arriving: int) -> None:
        self.disk.torn, self.disk.calls_left = torn, after
        with suppress(PowerCut, SpoolFailed, SpoolFull):
            work()
        self.power_cut()
        self.settle(arriving=arriving, is_whole=False)

    def power_cut(self) -> None:
        release(self.spool)
        self.disk.cut_power()
        self.spool = self.open()

    # --- what must hold

    def settle(self, *, arriving: int, is_whole: bool = True) -> None:
        """What is on the disk or in the store no more was dropped: less than what arrived, not more than what stays."""
        waiting, there = samples_in(self.folder), set(stored(self.store))
        lost = set(self.acknowledged) - set(waiting) - there - self.gone
        for number in lost:
            assert self.acknowledged[number] < arriving
        rest = samples_in(self.folder, pinned=False).values()
        if is_whole and lost:
            assert max(self.acknowledged[number] for number in lost) <= min(rest, default=TIERS)
        self.gone |= lost

    @invariant()
    def every_loss_is_of_eviction(self) -> None:
        waiting = set(samples_in(self.folder)) | set(stored(self.store))
        assert set(self.acknowledged) <= waiting | self.gone

    @invariant()
    def what_was_taken_is_known(self) -> None:
        assert all(self.spool.is_known(sample(number).sample_id) for number in self.known())

    def known(self) -> set[int]:
        """Samples that must be known: a disk that failed once may not have taken the names of uploaded ones."""
        forgotten = set(stored(self.store)) if self.was_faulty else set()
        return self.acknowledged.keys() - self.gone - forgotten

    @invariant()
    def no_sample_is_in_two_segments(self) -> None:
        counted = Counter(stored(self.store))
        excused = self.unmarked | (self.again if self.was_faulty else set())  # the table takes them once, by their id
        assert all(counted[number] == 1 or number in excused for number in counted)

    @invariant()
    def the_bound_holds(self) -> None:
        assert self.spool.size <= _LIMITS.spool_bytes
        on_disk = sum(path.stat().st_size for path in self.folder.glob("*.*.*.*"))
        assert self.disk.mode or on_disk <= _LIMITS.spool_bytes + 1000

    def teardown(self) -> None:
        try:
            self.drain()
            names = stored(self.store)
            assert set(self.acknowledged) - self.gone <= set(names) <= set(self.acknowledged) | self.refused
            said = [number_of(each.sample_id) for each in stored_labels(self.store)]
            assert self.labels <= set(said) and len(said) == len(set(said))
            self.check_sequence()
            assert (self.spool.samples, self.spool.size) == (0, 0)
        finally:
            release(self.spool)
            self.disk.__exit__(None, None, None)
            shutil.rmtree(self.folder)
            logging.disable(logging.NOTSET)

    def drain(self) -> None:
        for _ in range(2):  # the second time after the pause of a disk that was found failing just now
            self.disk.mode = ""
            self.time += _PAUSE
            self.cut()
            self.spool.upload(self.store)

    def check_sequence(self) -> None:
        numbers = {number_of(each.sample_id): sequence_of(each) for each in stored_samples(self.store)}
        taken = [numbers[number] for number in self.acknowledged if number in numbers and number not in self.again]
        assert len(set(numbers.values())) == len(numbers)
        assert taken == sorted(taken)


def release(spool: Spool) -> None:
    """Close the files of a spool whose machine is off."""
    for opened in spool._ledger.open.values():
        os.close(opened.log._file)
    spool._ledger.open = {}


TestSpoolMachine = SpoolMachine.TestCase
TestSpoolMachine.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
