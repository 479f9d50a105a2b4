"""Photos as rows: the features of a LiteRT extractor, computed once per photo and kept under the home."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgeloop.clients.models import Backbone, read_backbone
from edgeloop.clients.objects import open_store
from edgeloop.errors import BadInput
from edgeloop.learning.features import features_of
from edgeloop.samples.payloads import UndecodablePayload
from edgeloop.samples.records import digest

if TYPE_CHECKING:
    from numpy.typing import NDArray

Say = Callable[[str], None]


class NoBackbone(BadInput):
    """A stream of photos needs an extractor."""


class UnreadablePhoto(BadInput):
    """A file that a stream names is no photo."""


class Photographs:
    """Turns paths into features, sizes and groups."""

    def __init__(self, home: Path, backbone: Path | None, say: Say) -> None:
        self._home, self._path, self._say = home, backbone, say
        self._backbone: Backbone | None = None

    def _load(self) -> Backbone:
        if self._path is None:
            raise NoBackbone("this stream is of photos: name a LiteRT extractor with --backbone FILE")
        if self._backbone is None:
            self._backbone = read_backbone(self._path)
        return self._backbone

    def rows(self, paths: Sequence[Path]) -> tuple[NDArray[np.float32], NDArray[np.int64], list[str]]:
        """Features [photos, features], bytes [photos] and digests of the files at ``paths``.

        Raises:
            NoBackbone: none was named.
            UnreadablePhoto: a file cannot be read or decoded.
        """
        backbone = self._load()
        payloads = [_read(path) for path in paths]
        folder = self._home / "bench" / "stream"
        folder.mkdir(parents=True, exist_ok=True)
        rows = [{"payload": payload, "extra": "{}"} for payload in payloads]
        try:
            found = features_of(open_store(str(folder)), backbone, rows, self._progress)
        except UndecodablePayload as error:
            raise UnreadablePhoto(f"a photo beside {paths[0]} does not decode ({error}): take it out") from error
        return found, np.array([len(p) for p in payloads], np.int64), [digest(p) for p in payloads]

    def _progress(self, done: int, count: int) -> None:
        self._say(f"features of {done} of {count} photos")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UnreadablePhoto(f"{path} cannot be read ({error.strerror}): mend the path") from error
