"""Which samples were captured lately, so that an input sent again is not captured twice.

What is in the spool is found there after a restart; what has been uploaded since is kept in a small file.
"""

from __future__ import annotations

import logging
import os
from collections import OrderedDict
from collections.abc import Iterable
from pathlib import Path

_log = logging.getLogger(__name__)
#: 32 bytes of sample id, one that says what selected it.
_RECORD = 33
_CODES = {"audit": b"a", "confidence": b"c"}
_NAMES = {code[0]: name for name, code in _CODES.items()}


class Recent:
    """The last ``capacity`` captured samples and what selected each."""

    def __init__(self, path: Path, capacity: int = 50_000) -> None:
        self._path = path
        self._old = path.with_suffix(".old")
        self._capacity = capacity
        self._by_id: OrderedDict[bytes, str] = OrderedDict()
        for file in (self._old, path):
            self._read(file)

    def _read(self, file: Path) -> None:
        data = file.read_bytes() if file.exists() else b""
        for start in range(0, len(data) - _RECORD + 1, _RECORD):
            self._remember(data[start : start + 32], _NAMES.get(data[start + 32], "audit"))

    def _remember(self, key: bytes, selected_by: str) -> None:
        self._by_id[key] = selected_by
        while len(self._by_id) > self._capacity:
            self._by_id.popitem(last=False)

    def add(self, sample_id: str, selected_by: str) -> None:
        """Remember a captured sample, in memory."""
        self._remember(bytes.fromhex(sample_id), selected_by)

    def get(self, sample_id: str) -> str | None:
        """What selected this sample, if it was captured lately."""
        return self._by_id.get(bytes.fromhex(sample_id))

    def keep(self, samples: Iterable[tuple[str, str]]) -> None:
        """Remember uploaded samples over a restart. Best effort: the cloud merges by id anyway."""
        records = [bytes.fromhex(name) + _CODES.get(by, b"a") for name, by in samples]
        try:
            self._append(b"".join(records))
        except OSError as error:
            _log.warning("recent samples were not written down", extra={"error": str(error)})

    def _append(self, data: bytes) -> None:
        size = self._path.stat().st_size if self._path.exists() else 0
        if size >= self._capacity * _RECORD:
            self._path.replace(self._old)
            size = 0
        with self._path.open("ab") as file:
            file.truncate(size - size % _RECORD)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
