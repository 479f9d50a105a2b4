"""Parts that stop working after so many calls, as a process does that is killed: every step must survive that."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Crash(BaseException):
    """The process is gone. Not an Exception, so that nobody handles it."""


class Fuse:
    """Blows at the call with number ``after`` to any of the parts that it guards (0 is the first one)."""

    def __init__(self, after: int) -> None:
        self.left = after
        self.blown = False

    def pass_or_blow(self) -> None:
        """Count one call."""
        if self.left == 0:
            self.blown = True
            raise Crash
        self.left -= 1


class Guarded:
    """Stands before ``part``: the calls named pass the fuse first."""

    def __init__(self, part: Any, fuse: Fuse, *names: str) -> None:
        self._part = part
        self._fuse = fuse
        self._names = names

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._part, name)
        if name not in self._names:
            return found

        def call(*args: Any, **kwargs: Any) -> Any:
            self._fuse.pass_or_blow()
            return found(*args, **kwargs)

        return call


def crash_everywhere(run: Callable[[Fuse], Any], limit: int = 200) -> int:
    """Call ``run`` with a fuse that blows at the first call, the second, …; stop when it ends without a crash.

    Returns how many times it crashed. ``run`` makes its own world, and looks at it after a Crash itself.
    """
    for after in range(limit):
        fuse = Fuse(after)
        run(fuse)
        if not fuse.blown:
            return after
    raise AssertionError(f"did not end within {limit} calls")
