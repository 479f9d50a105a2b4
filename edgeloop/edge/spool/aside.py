"""Where damaged parts of the spool go, bounded, so that they stop nobody and somebody can look at them."""

from __future__ import annotations

import logging
from pathlib import Path

from edgeloop.edge.files import sync, write_durably

_log = logging.getLogger(__name__)
_BYTES = 64 * 1024 * 1024


class Aside:
    """A folder of damaged bytes; over its bound no more is kept."""

    def __init__(self, folder: Path, bound: int = _BYTES) -> None:
        self._folder = folder
        self._bound = bound
        self.count = 0
        """Damaged stretches and logs since the start."""

    def keep(self, path: Path, start: int, data: bytes) -> None:
        """Keep ``data``, found at ``start`` of the log ``path``."""
        self.count += 1
        _log.error("damaged bytes in the spool", extra={"file": path.name, "start": start, "bytes": len(data)})
        try:
            if self._used() + len(data) <= self._bound:
                write_durably(self._folder / f"{path.name}.{start}", data)
        except OSError as error:  # a full disk is emptied by going on
            _log.error("damaged bytes were not kept", extra={"error": str(error)})

    def move(self, path: Path, why: BaseException) -> None:
        """Put a whole log here by a rename, which needs no room; where that fails it stays for the next start."""
        self.count += 1
        _log.error("a log of the spool is set aside", extra={"file": path.name, "error": str(why)})
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            path.rename(self._free(path.name))
            sync(self._folder)
            sync(path.parent)
        except OSError as error:
            _log.error("a log could not be set aside", extra={"file": path.name, "error": str(error)})

    def _free(self, name: str) -> Path:
        target, number = self._folder / name, 0
        while target.exists():
            number += 1
            target = self._folder / f"{name}.again{number}"
        return target

    def _used(self) -> int:
        return sum(f.stat().st_size for f in self._folder.iterdir()) if self._folder.exists() else 0
