"""Layers: tar archives whose bytes are decided by the files in them and by nothing else.

They are not compressed. Compressed bytes depend on the version of a compressor, and then an unchanged backbone would
travel again; that is worth more than the quarter of its size, at best, that is saved once.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping
from pathlib import PurePosixPath

from edgeloop.errors import EdgeloopError


class BadLayerPath(EdgeloopError):
    """A path cannot stand in a layer."""


def layer_tar(files: Mapping[str, bytes]) -> bytes:
    """A layer with these files by path, such as ``models/head.npz``, and the folders that they lie in.

    ustar (POSIX.1-1988), sorted by path, of user and group 0, from the epoch's first second, files readable and folders
    passable by everyone.

    Raises:
        BadLayerPath: a path is absolute, leaves the layer, or is too long for ustar.
    """
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for path in sorted({*files, *_folders(files)}):
            data = files.get(path)
            try:
                tar.addfile(_entry(path, data), None if data is None else io.BytesIO(data))
            except ValueError as error:
                raise BadLayerPath(f"path {path!r:.120} does not fit a layer ({error}): shorten it") from error
    return sink.getvalue()


def _folders(files: Mapping[str, bytes]) -> set[str]:
    found: set[str] = set()
    for path in files:
        pure = PurePosixPath(path)
        if pure.is_absolute() or ".." in pure.parts or str(pure) != path or path == ".":
            raise BadLayerPath(f"path {path!r:.120} does not stay in its layer: give it as folder/name")
        found |= {str(parent) for parent in pure.parents} - {"."}
    return found


def _entry(path: str, data: bytes | None) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(path)
    entry.type = tarfile.DIRTYPE if data is None else tarfile.REGTYPE
    entry.mode = 0o755 if data is None else 0o644
    entry.size = len(data or b"")
    entry.mtime = 0
    entry.uid = entry.gid = 0
    return entry
