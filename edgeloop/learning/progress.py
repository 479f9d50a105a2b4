"""What training says of itself: lines for a log, some of which count, so that one call feeds logs, screens and bars."""

from __future__ import annotations

from collections.abc import Callable

#: Told of every line; a :class:`Counted` one says how far a stage is.
Progress = Callable[[str], None]


class Counted(str):
    """A line of a stage that is counted: ``done`` of ``of`` steps of ``stage``."""

    __slots__ = ("done", "of", "stage")

    stage: str
    done: int
    of: int


def counted(stage: str, done: int, of: int, detail: str = "") -> Counted:
    """The line ``<stage> <done>/<of> <detail>``, with its figures."""
    line = Counted(f"{stage} {done}/{of} {detail}".rstrip())
    line.stage, line.done, line.of = stage, done, of
    return line
