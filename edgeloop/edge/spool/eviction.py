"""Making room in a full spool: the least valuable samples go, the oldest of them first, and never for their equals.

An arriving record waits only until there is room for it. Then a pass, made when the spool has time, frees a tenth
of the bound and rewrites each log once at most, so that at most ten bytes are written for each that comes free; what
arrives meanwhile waits for one log and not for the pass.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from edgeloop.edge.spool.aside import Aside
from edgeloop.edge.spool.contents import Thinned, Unreadable, measure, thin
from edgeloop.edge.spool.frames import Frame
from edgeloop.edge.spool.ledger import Ledger, Opened
from edgeloop.edge.spool.shelf import Shelved
from edgeloop.edge.spool.tiers import Tiers, plan
from edgeloop.errors import EdgeloopError

_LOW_WATER = 0.9


class SpoolFull(EdgeloopError):
    """The spool has reached its bound and holds nothing less valuable: the store must take what waits."""


class Eviction:
    """Keeps the logs of ``ledger`` within ``bound`` bytes. Methods may be called from any thread."""

    def __init__(self, ledger: Ledger, aside: Aside, bound: int) -> None:
        self._ledger = ledger
        self._aside = aside
        self._bound = bound
        self._alone = threading.Lock()
        self._next = threading.Lock()
        self._below = 0
        """The pass that is due may drop the tiers under this; 0 when none is due."""
        self.dropped: Counter[str] = Counter()

    def fits(self, size: int) -> bool:
        """Whether ``size`` bytes more are within the bound; under the ledger's lock."""
        return self._ledger.used + size <= self._bound

    def make_room(self, size: int, tier: int) -> None:
        """Drop what is least valuable, from one log, for a record of ``tier``, unless there is room meanwhile.

        Raises:
            SpoolFull: there is nothing less valuable to drop.
            OSError: the disk failed; nothing was lost.
        """
        with self._turn():
            with self._ledger.lock:
                if self.fits(size):
                    return
                lowest = self._lowest(size, tier)
                log = self._claim_oldest(lowest)
            if log is not None:
                self._rewrite(log, frozenset([lowest]))
            self._below = max(self._below, tier)

    def _lowest(self, size: int, tier: int) -> int:
        if size > self._bound:
            raise SpoolFull(f"a record has {size} bytes and the spool may hold {self._bound}: raise spool_bytes")
        droppable, used = self._ledger.droppable(), self._ledger.used
        lowest = droppable.lowest()
        if lowest is None or sum(droppable.sizes[:tier]) < used + size - self._bound:
            waits = f"the spool holds {used} bytes and may hold {self._bound}"
            raise SpoolFull(f"{waits}, too few less valuable among them: check the store")
        return lowest

    def _claim_oldest(self, tier: int) -> Shelved | None:
        holding = (log for log in self._ledger.droppable_logs() if log.tiers.counts[tier])
        return self._ledger.claim(next(holding))

    def finish(self) -> None:
        """Make the pass that is due, down to the low-water mark.

        Raises:
            OSError: the disk failed; the pass stays due.
        """
        with self._turn():
            below, self._below = self._below, 0
            steps = self._plan(below) if below else []
        try:
            for log, tiers in steps:
                self._step(log, tiers)
        except OSError:
            self._below = max(self._below, below)
            raise

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """One at a time, and who waits comes before who had the last turn: a lock alone would let a pass go on."""
        with self._next:
            self._alone.acquire()
        try:
            yield
        finally:
            self._alone.release()

    def _step(self, log: Shelved | Opened, tiers: frozenset[int]) -> None:
        """Let a log lose ``tiers``, unless it has lost them meanwhile."""
        if isinstance(log, Opened):
            self._ledger.sync_ahead(log)
        with self._turn():
            with self._ledger.lock:
                has_some = any(log.tiers.counts[tier] for tier in tiers)
                claimed = self._ledger.claim(log) if has_some else None
            if claimed is not None:
                self._rewrite(claimed, tiers)

    def _plan(self, below: int) -> list[tuple[Shelved | Opened, frozenset[int]]]:
        with self._ledger.lock:
            logs = list(self._ledger.droppable_logs())
            need = self._ledger.used - int(self._bound * _LOW_WATER)
            steps = plan([log.tiers for log in logs], need, below) if need > 0 else []
            return [(logs[index], tiers) for index, tiers in steps]

    def _rewrite(self, log: Shelved, tiers: frozenset[int]) -> None:
        """Rewrite a claimed log without ``tiers``, and count what it lost."""

        def is_lost(each: Frame) -> bool:
            return each.tier in tiers

        try:
            self._ledger.make_name_sure(log)
            thinned = thin(log.path, log.size, is_lost)
        except Unreadable as error:
            self._aside.move(log.path, error)
            thinned = Thinned(0, Tiers(), 0)
        except OSError:
            self._settle(log, _as_it_is(log))
            raise
        self._settle(log, thinned)

    def _settle(self, log: Shelved, thinned: Thinned) -> None:
        ledger = self._ledger
        with ledger.lock:
            log.busy = False
            self.dropped.update({log.key[1]: thinned.lost} if thinned.lost else {})
            ledger.shelf.recount(log, thinned.size, thinned.tiers)
            if not thinned.size:
                ledger.shelf.remove(log)


def _as_it_is(log: Shelved) -> Thinned:
    """What became of a log whose rewriting failed: it is the old one or the new one."""
    there = replace(log)
    measure(there)
    return Thinned(there.size, there.tiers, log.tiers.count - there.tiers.count)
