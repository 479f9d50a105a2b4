"""Which inputs were answered lately, so that one that is sent again gets the same result and counts once."""

from __future__ import annotations

import threading
from collections import OrderedDict
from concurrent.futures import Future

from edgeloop.edge.results import Result


class Once:
    """Results by sample id: those in work, and the last ``remember`` that are done. Any thread may call."""

    def __init__(self, remember: int) -> None:
        self._remember = remember
        self._lock = threading.Lock()
        self._working: dict[str, Future[Result]] = {}
        self._done: OrderedDict[str, Result] = OrderedDict()

    def claim(self, name: str) -> Future[Result] | Result | None:
        """None: the caller is the first and must settle or fail; else the result, or where it will be."""
        with self._lock:
            known = self._done.get(name) or self._working.get(name)
            if known is None:
                self._working[name] = Future()
            return known

    def settle(self, name: str, result: Result, *, keep: bool) -> None:
        """The result is there; ``keep`` it for whoever sends the input again."""
        with self._lock:
            future = self._working.pop(name)
            if keep:
                self._done[name] = result
                if len(self._done) > self._remember:
                    self._done.popitem(last=False)
        future.set_result(result)

    def fail(self, name: str, error: BaseException) -> None:
        """There will be no result; the next to send the input begins anew."""
        with self._lock:
            future = self._working.pop(name)
        future.set_exception(error)

    def result(self, name: str) -> Result | None:
        """The result of an input, if it was answered lately."""
        with self._lock:
            return self._done.get(name)
