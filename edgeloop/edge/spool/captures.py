"""What an answer needs of a spool, and the one that keeps nothing: for a model server that collects no samples."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from edgeloop.samples.records import Label, Sample


class Captures(Protocol):
    """Where chosen samples and labels go; :class:`~edgeloop.edge.spool.spool.Spool` is one."""

    @property
    def refused(self) -> int:
        """Records that were not taken since the start."""

    @property
    def samples(self) -> int:
        """Records that wait for the store."""

    @property
    def size(self) -> int:
        """Bytes that wait for the store."""

    @property
    def accepting(self) -> bool:
        """Whether captures are taken."""

    @property
    def dropped(self) -> Mapping[str, int]:
        """Records dropped for more valuable ones since the start, by service; 0 for any other."""

    @property
    def corrupt(self) -> int:
        """Damaged stretches set aside since the start."""

    def selected(self, sample_id: str) -> str | None:
        """What selected this sample, if it was captured lately."""

    def is_known(self, sample_id: str) -> bool:
        """Whether this sample was captured lately."""

    def append(self, record: Sample | Label, value: float = 1.0) -> bool:
        """Take one record, durably; False where it is here already. Raises SpoolFull, SpoolFailed."""

    def begin(self, record: Sample | Label, value: float = 1.0) -> Callable[[], bool]:
        """As :meth:`append`, which is done when what is returned has returned."""


class NoCaptures:
    """Keeps nothing and needs no disk. Nothing is chosen for it, so it is never asked to take a record."""

    refused = samples = size = corrupt = 0
    accepting = False

    @property
    def dropped(self) -> Mapping[str, int]:
        """None are."""
        return Counter()

    def selected(self, _sample_id: str) -> str | None:
        """Nothing was."""
        return None

    def is_known(self, _sample_id: str) -> bool:
        """None is."""
        return False

    def append(self, _record: Sample | Label, _value: float = 1.0) -> bool:
        """Not taken."""
        return False

    def begin(self, _record: Sample | Label, _value: float = 1.0) -> Callable[[], bool]:
        """Not taken."""
        return lambda: False
