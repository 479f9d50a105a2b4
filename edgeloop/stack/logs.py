"""The log file of each part: appended to, kept from growing for ever, and quoted when the part fails."""

from __future__ import annotations

from pathlib import Path
from typing import IO

MAX_BYTES = 5_000_000
_TAIL = 8192


def open_log(path: Path, max_bytes: int = MAX_BYTES) -> IO[bytes]:
    """Open for appending; a file above ``max_bytes`` is first set aside as ``NAME.log.1``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and path.stat().st_size > max_bytes:
        path.replace(path.with_name(f"{path.name}.1"))
    return path.open("ab")


def last_line(path: Path) -> str:
    """The last line that says something, at most 300 characters; empty when there is none."""
    try:
        with path.open("rb") as log:
            log.seek(0, 2)
            log.seek(max(0, log.tell() - _TAIL))
            lines = log.read().decode("utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.strip()[:300] for line in reversed(lines) if line.strip(" -=*\t")), "")
