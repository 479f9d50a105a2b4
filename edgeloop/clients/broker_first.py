"""A client's first connection hands nothing out before it stands.

The broker may send what it kept before it answers the subscriptions. If the attempt fails then, it sends all that again
to the next attempt, whose client knows nothing of this one: a message handed out by both would be answered twice.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError


class FirstConnection:
    """Whether it stands is decided once; all but :meth:`wait` is for the network thread."""

    def __init__(self) -> None:
        self._answer: Future[None] = Future()
        self._held: list[Callable[[], None]] = []
        self._stood = False

    def wait(self, timeout: float) -> None:
        """Wait until it stands.

        Raises:
            TimeoutError: it does not after ``timeout`` seconds, and never will.
            Exception: what it failed with.
        """
        try:
            self._answer.result(timeout)
        except TimeoutError:
            if self._answer.cancel():
                raise
            self._answer.result(timeout)  # it was decided at this moment

    def then(self, work: Callable[[], None]) -> None:
        """Do ``work`` when the connection stands, or now if it did; never if it fails, or has failed."""
        if self._stood:
            work()
        elif not self._answer.done():
            self._held.append(work)

    def begin(self) -> bool:
        """The subscriptions stand: do what was held. False when it has failed before, and nobody waits for it."""
        if not self._stood and not self._answer.done() and self._answer.set_running_or_notify_cancel():
            self._stood = True
            held, self._held = self._held, []
            for work in held:
                work()
        return self._stood

    def succeed(self) -> None:
        """Let :meth:`wait` return."""
        if not self._answer.done():
            self._answer.set_result(None)

    def fail(self, error: Exception) -> bool:
        """Let :meth:`wait` raise ``error``; False when the connection had stood, or failed, before."""
        try:
            self._answer.set_exception(error)
        except InvalidStateError:
            return False
        self._stood = False
        self._held = []
        return True
