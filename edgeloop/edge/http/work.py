"""How much a node takes on at once over HTTP: what is over it is refused at once instead of queued without end."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import Executor, Future

from edgeloop.edge.http.messages import Busy
from edgeloop.edge.results import Result

#: Most instances of one request in work at once, so that a large batch leaves places to others.
LANES = 8

Ask = Callable[[bytes], Result]


class Work:
    """A bounded number of inputs in work, and of bytes held for them; may be called from any thread."""

    def __init__(self, pool: Executor, places: int, held_bytes: int) -> None:
        self.places = places
        self.refused: Counter[str] = Counter()
        """Requests that got an error, by reason."""
        self._pool = pool
        self._free = places
        self._lock = threading.Lock()
        self._bytes = held_bytes
        self._held = 0

    @property
    def in_work(self) -> int:
        """Inputs that are being answered."""
        return self.places - self._free

    def take(self, most: int = 1) -> int:
        """Take up to ``most`` places; returns how many there were."""
        with self._lock:
            taken = min(most, self._free)
            self._free -= taken
            return taken

    def give(self, taken: int) -> None:
        """Give places back."""
        with self._lock:
            self._free += taken

    def check_free(self) -> None:
        """Raise Busy when every place is taken."""
        if self._free < 1:
            raise self.busy()

    def busy(self) -> Busy:
        """The refusal of what does not fit."""
        return Busy(f"{self.places} inputs are in work, as many as this node takes at once: send it again in a second")

    def hold(self, count: int) -> None:
        """Count ``count`` more bytes of bodies; raises Busy when they are too many, and has counted them then too."""
        with self._lock:
            self._held += count
            held = self._held
        if held > self._bytes:
            raise Busy(f"requests hold {held} bytes, more than {self._bytes}: send it again in a second")

    def release(self, count: int) -> None:
        """Count ``count`` bytes less."""
        with self._lock:
            self._held -= count

    def each(self, ask: Ask, payloads: list[bytes]) -> list[Result]:
        """Ask for every payload, in order, in the place that the caller has and in what else is free now.

        Stops at the first result with an error, which is then the last of the list.
        """
        if len(payloads) == 1:
            return [ask(payloads[0])]
        extra = self.take(min(len(payloads), LANES) - 1)
        batch = _Batch(ask, payloads)
        try:
            helpers = [self._pool.submit(batch.run) for _ in range(extra)]
            try:
                batch.run()
            finally:
                _join(helpers)
        finally:
            self.give(extra)
        return batch.results()


class Held:
    """The bytes that one request holds, as it came and decompressed; one thread at a time asks for more."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._bytes = 0

    def more(self, count: int) -> None:
        """Hold ``count`` more; raises Busy when all requests hold too many."""
        self._bytes += count
        self._work.hold(count)

    def release(self) -> None:
        """Hold none any more."""
        self._work.release(self._bytes)
        self._bytes = 0


class _Batch:
    """The instances of one request, answered by several threads; each takes the next one."""

    def __init__(self, ask: Ask, payloads: list[bytes]) -> None:
        self._ask = ask
        self._payloads = payloads
        self._results: dict[int, Result] = {}
        self._next = iter(range(len(payloads)))
        self._lock = threading.Lock()
        self._failed = False

    def run(self) -> None:
        """Answer until nothing is left or one has failed."""
        while not self._failed:
            with self._lock:
                number = next(self._next, None)
            if number is None:
                return
            try:
                self._results[number] = self._ask(self._payloads[number])
                self._failed |= self._results[number].error is not None
            except BaseException:
                self._failed = True
                raise

    def results(self) -> list[Result]:
        """In order, up to the first that failed."""
        ordered = [self._results[n] for n in sorted(self._results)]
        for number, result in enumerate(ordered):
            if result.error is not None:
                return [*ordered[:number], result]
        return ordered


def _join(helpers: Iterable[Future[None]]) -> None:
    """Wait for the helpers that began; the others would find nothing left to do."""
    for helper in helpers:
        if not helper.cancel():
            helper.result()


def work_lines(work: Work) -> list[str]:
    """The counters of HTTP itself as lines of Prometheus text 0.0.4."""
    return [
        "# HELP edgeloop_http_refused_total Requests that got an error, by reason.",
        "# TYPE edgeloop_http_refused_total counter",
        *(f'edgeloop_http_refused_total{{reason="{r}"}} {n}' for r, n in sorted(work.refused.copy().items())),
        "# HELP edgeloop_http_in_work Inputs being answered over HTTP.",
        "# TYPE edgeloop_http_in_work gauge",
        f"edgeloop_http_in_work {work.in_work}",
    ]
