"""What can go wrong, in one place, so that the command line can turn each failure into an exit code and one line.

Every message names the thing, the value and the next step. Rooms add one subclass per failure of their own.
"""

from __future__ import annotations


class EdgeloopError(Exception):
    """Something failed that is not the user's mistake; the command line exits with 1."""

    exit_code = 1


class BadInput(EdgeloopError):
    """What was given cannot be used as it is; the command line exits with 2."""

    exit_code = 2


class Unavailable(EdgeloopError):
    """A part that edgeloop stands on (store, broker, registry, orchestrator) did not answer; worth a retry."""


class MissingExtra(BadInput):
    """A package of an optional extra is not installed."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"{package} is not installed: run  pip install 'edgeloop[{extra}]'")
        self.package = package
        self.extra = extra
