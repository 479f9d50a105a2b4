"""How many requests a second a node stands before its latency budget breaks.

Requests come when they are due, whether or not earlier ones were answered, as devices do: who only asks again after an
answer never sees a queue. The time of an answer counts from when its request was due, also when nobody was free to send
it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgeloop.twin.asking import NoAnswer
from edgeloop.twin.records import Load, Step

#: Requests of one step at the least, and seconds.
LEAST = 50
STEP_SECONDS = 1.0
_FASTER = 1.5
_HALVINGS = 2
#: The sender is what is slow when it worked for this part of the time,
_WORKED = 0.2
#: and worked or waited for a core for this part.
_WORKED_OR_WAITED = 0.8
#: Seconds for all threads to be ready.
_AHEAD = 0.02
#: Threads that send. More than a node takes at once: it refuses what is too much before they are all busy.
THREADS = 48


@dataclass(frozen=True)
class Offered:
    """What one rate brought."""

    step: Step
    strained: bool
    """Whether the sender had its hands full, with work or with waiting for a core: Python sends from one core, however
    many threads it has."""


def offer(send: Callable[[int], object], rate: float, budget_ms: float, threads: int = THREADS) -> Offered:
    """Send at ``rate`` requests/s for one step; ``send`` gets the number of the request and may raise NoAnswer."""
    return _Run(send, rate, threads).go(budget_ms)


class _Run:
    def __init__(self, send: Callable[[int], object], rate: float, threads: int) -> None:
        self._send = send
        self._rate = rate
        self._count = max(LEAST, round(rate * STEP_SECONDS))
        self._threads = threads
        self._lock = threading.Lock()
        self._next = 0
        self._took: list[float] = []
        self._failed = 0
        self._ran = self._waited = 0.0

    def go(self, budget_ms: float) -> Offered:
        self._began = time.perf_counter() + _AHEAD
        threads = [threading.Thread(target=self._work, daemon=True) for _ in range(min(self._threads, self._count))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        p99 = float(np.quantile(self._took, 0.99)) * 1000 if self._took else float("inf")
        held = not self._failed and p99 <= budget_ms
        p99 = min(p99, 1e9)  # JSON knows no infinity
        step = Step(rate=self._rate, asked=self._count, failed=self._failed, p99_ms=p99, held=held)
        wall = time.perf_counter() - self._began
        return Offered(step, self._ran >= _WORKED * wall and self._ran + self._waited >= _WORKED_OR_WAITED * wall)

    def _work(self) -> None:
        self._send_all()
        ran, waited = _spent()
        with self._lock:
            self._ran, self._waited = self._ran + ran, self._waited + waited

    def _send_all(self) -> None:
        while (number := self._take()) is not None:
            due = self._began + number / self._rate
            if (wait := due - time.perf_counter()) > 0:
                time.sleep(wait)
            self._one(number, due)

    def _take(self) -> int | None:
        with self._lock:
            number, self._next = self._next, self._next + 1
        return number if number < self._count else None

    def _one(self, number: int, due: float) -> None:
        try:
            self._send(number)
            failed = False
        except NoAnswer:
            failed = True
        took = time.perf_counter() - due
        with self._lock:
            self._failed += failed
            if not failed:
                self._took.append(took)


def _spent() -> tuple[float, float]:
    """Seconds for which this thread ran, and for which it waited for a core (nothing where the system does not tell).

    Source: Linux, Documentation/scheduler/sched-stats.rst, "/proc/<pid>/schedstat".
    """
    try:
        ran, waited, _ = Path("/proc/thread-self/schedstat").read_text(encoding="ascii").split()
        return int(ran) / 1e9, int(waited) / 1e9
    except (OSError, ValueError):
        return time.thread_time(), 0.0


def find_break(
    send: Callable[[int], object],
    budget_ms: float,
    start: float,
    slowdown: float = 1.0,
    longest: float = 30.0,
    threads: int = THREADS,
) -> Load:
    """Raise the rate until the 99th percentile is over the budget or a request fails, then close in on where.

    A rate that broke once is tried again before it counts: a machine has moments of its own.

    Args:
        budget_ms: of the profile's hardware; there everything takes ``slowdown`` times as long.
        start: first rate in requests/s, on this machine.
        longest: seconds after which no further rate is tried.
    """
    steps: list[Offered] = []
    until = time.perf_counter() + longest
    low, high, rate, halvings = 0.0, None, start, 0
    while time.perf_counter() + LEAST / rate < until and halvings <= _HALVINGS:
        found = offer(send, rate, budget_ms / slowdown, threads)
        steps.append(found)
        if not found.step.held:
            found = offer(send, rate, budget_ms / slowdown, threads)
            steps.append(found)
        if found.step.held:
            low = rate
        else:
            high = rate
        if high is None:
            rate *= _FASTER
        elif not low:
            rate /= _FASTER
        else:
            rate, halvings = (low * high) ** 0.5, halvings + 1
    return _load(steps, low, high, slowdown)


def _load(steps: list[Offered], low: float, high: float | None, slowdown: float) -> Load:
    broken = [one for one in steps if high is not None and one.step.rate == high]
    by_node = any(one.step.failed or not one.strained for one in broken)
    return Load(
        holds_at=low / slowdown if low else None,
        breaks_at=high / slowdown if high is not None else None,
        limit="time" if high is None else "node" if by_node else "sender",
        steps=[one.step for one in steps],
    )
