"""Files that are named on the command line, read and written with one-line errors."""

from __future__ import annotations

from pathlib import Path

from edgeloop.errors import BadInput


class UnreadableFile(BadInput):
    """A file that an option names cannot be read."""


class UnwritableFile(BadInput):
    """A file that an option names cannot be written."""


def read_file(path: Path, option: str, most: int) -> bytes:
    """At most ``most`` bytes of the file; raises UnreadableFile."""
    try:
        with path.open("rb") as file:
            return file.read(most)
    except OSError as error:
        raise UnreadableFile(f"{option} {path} cannot be read ({error}): name another file") from error


def write_file(path: Path, option: str, data: bytes) -> None:
    """Write ``data``; raises UnwritableFile."""
    try:
        path.write_bytes(data)
    except OSError as error:
        raise UnwritableFile(f"{option} {path} cannot be written ({error}): name another file") from error
