"""Things of which there are few, lent to one thread at a time in the order of asking.

A queue that lets a newcomer pass those who wait makes the slowest requests slower; here a thing that comes back goes
straight to whoever has waited longest, and when nobody waits the one used last is lent next: its memory is warm.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Generic, TypeVar

T = TypeVar("T")


def usable_cores(most: int = 4) -> int:
    """Cores that this process may run on, at most ``most``."""
    affinity = getattr(os, "sched_getaffinity", None)  # only where the system has it
    return max(1, min(most, len(affinity(0)) if affinity else os.cpu_count() or 1))


class Lender(Generic[T]):
    """Lends ``things``; ``len()`` is how many there are."""

    def __init__(self, things: Iterable[T]) -> None:
        self._free = list(things)
        self._count = len(self._free)
        self._waiting: deque[Future[T]] = deque()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return self._count

    @contextmanager
    def lend(self, seconds: float | None = None) -> Iterator[T]:
        """One of the things for as long as the block runs; raises TimeoutError after ``seconds`` of waiting."""
        thing = self._take(seconds)
        try:
            yield thing
        finally:
            self._give(thing)

    def _take(self, seconds: float | None) -> T:
        with self._lock:
            if self._free:
                return self._free.pop()
            ticket: Future[T] = Future()
            self._waiting.append(ticket)
        try:
            return ticket.result(seconds)
        except TimeoutError:
            return self._give_up(ticket)

    def _give_up(self, ticket: Future[T]) -> T:
        with self._lock:
            if ticket in self._waiting:
                self._waiting.remove(ticket)
                raise TimeoutError(f"none of {self._count} came free in time")
        return ticket.result()  # it came at the last moment

    def _give(self, thing: T) -> None:
        with self._lock:
            if self._waiting:
                self._waiting.popleft().set_result(thing)
            else:
                self._free.append(thing)
