"""Threads for the inputs of a node: as few at work as it takes, because threads that compete are slower than one.

Work has two halves. ``begin`` computes; it may hand back the rest, which waits for the disk. One worker begins what
is queued for a few milliseconds and then finishes all of it, so that one sync of the disk serves the batch, while
the next worker begins the next. A second one begins beside the first only when the first is stuck: a model that
takes long, an endpoint that hangs.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

_log = logging.getLogger(__name__)
#: A worker begins for this long before it finishes what it has begun; most items of a batch.
BATCH_SECONDS = 0.004
BATCH_ITEMS = 64
#: A beginner that takes nothing for this long is stuck, and another begins beside it.
PATIENCE_SECONDS = 0.002

Item = TypeVar("Item")
Finish = Callable[[], None]


class Workers(Generic[Item]):
    """Begins and finishes items in at most ``most`` threads, which start when they are needed.

    ``begin`` and what it returns must not raise; what does is logged.
    """

    def __init__(self, begin: Callable[[Item], Finish | None], most: int, name: str) -> None:
        self._begin = begin
        self._most = most
        self._name = name
        self._free = threading.Condition()
        self._items: deque[Item] = deque()
        self._threads: list[threading.Thread] = []
        self._idle = 0
        self._beginning = 0
        self._has_deputy = False
        self._last_take = 0.0
        self._stopped = False

    def __len__(self) -> int:
        """Items that nobody has begun."""
        return len(self._items)

    @property
    def idle(self) -> bool:
        """Whether every worker waits to be called, and none watches."""
        with self._free:
            return self._idle == len(self._threads) and not self._beginning and not self._has_deputy

    def put(self, item: Item) -> None:
        """Queue ``item``; never blocks."""
        with self._free:
            self._items.append(item)
            if not self._beginning:
                self._call_one()

    def _call_one(self) -> None:
        if self._idle:
            self._free.notify()
        elif len(self._threads) < self._most and not self._stopped:
            thread = threading.Thread(target=self._run, name=f"{self._name}-{len(self._threads)}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def _run(self) -> None:
        while (first := self._take()) is not None:
            begun = self._begin_some(*first)
            with self._free:
                self._beginning -= 1
                if self._items and not self._beginning:
                    self._call_one()
            for finish in begun:
                _guarded(finish)

    def _begin_some(self, item: Item) -> list[Finish]:
        begun: list[Finish] = []
        end = time.monotonic() + BATCH_SECONDS
        while True:
            finish = _guarded(lambda: self._begin(item))  # noqa: B023 - called at once
            if finish is not None:
                begun.append(finish)
            if len(begun) >= BATCH_ITEMS or time.monotonic() >= end:
                return begun
            try:
                item = self._items.popleft()
            except IndexError:
                return begun
            self._last_take = time.monotonic()

    def _take(self) -> tuple[Item] | None:
        """Wait for one's turn to begin; None when there will be no more."""
        with self._free:
            while True:
                now = time.monotonic()
                if self._items and (not self._beginning or now - self._last_take >= PATIENCE_SECONDS):
                    self._last_take = now
                    self._beginning += 1
                    item = self._items.popleft()
                    if not self._has_deputy:
                        self._call_one()
                    return (item,)
                if self._stopped and not self._items:
                    return None
                self._wait()

    def _wait(self) -> None:
        """Wait to be called; one of those who wait, the deputy, watches whether the beginner is stuck."""
        is_deputy = self._beginning > 0 and not self._has_deputy
        self._has_deputy = self._has_deputy or is_deputy
        self._idle += 1
        self._free.wait(PATIENCE_SECONDS if is_deputy else None)
        self._idle -= 1
        if is_deputy:
            self._has_deputy = False

    def stop(self) -> None:
        """Begin what is queued, take no more, and end the threads as they become idle; does not wait."""
        with self._free:
            self._stopped = True
            self._free.notify_all()


def _guarded(work: Callable[[], Finish | None]) -> Finish | None:
    try:
        return work()
    except Exception:  # one bad item must not end a worker
        _log.exception("a worker failed on an item")
        return None
