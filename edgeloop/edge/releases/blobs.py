"""The releases a node has on its disk: blobs under their digest, and the manifests that name them."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from edgeloop.edge.files import write_durably
from edgeloop.edge.releases.downloads import Downloads, Wish
from edgeloop.samples.records import digest, hexdigest
from edgeloop.samples.releases import Layer, MalformedRelease, NoVariant, Release, parse_release

if TYPE_CHECKING:
    from edgeloop.clients.objects import ObjectStore


#: Whether a download is still wanted.
GoesOn = Callable[[], bool]


def _always() -> bool:
    return True


class Blobs:
    """``<folder>/blobs/sha256/<hex>`` and ``<folder>/releases/<hex>.json``; nothing unchecked is returned.

    ``profile`` is the node's: of releases with variants, only that one's blobs stay.
    """

    def __init__(self, folder: Path, downloads: Downloads | None = None, profile: str | None = None) -> None:
        self._blobs = folder / "blobs" / "sha256"
        self._releases = folder / "releases"
        self._downloads = downloads or Downloads()
        self._profile = profile
        self._lock = threading.Lock()
        self._fetching: dict[str, threading.Lock] = {}

    def read(self, name: str) -> bytes | None:
        """The blob ``name``, checked; None when it is not here, or no longer whole."""
        path = self._blobs / hexdigest(name)
        try:
            data = path.read_bytes()
        except OSError:
            return None
        if digest(data) != name:
            with suppress(OSError):
                path.unlink()
            return None
        return data

    def fetch(self, store: ObjectStore, layers: Sequence[Layer], goes_on: GoesOn = _always) -> dict[str, bytes]:
        """The blobs of ``layers`` by digest; what is not here comes from ``store``.

        Raises:
            CorruptBlob: the store's bytes are not the ones named.
            DiskFull: there is no room for them.
            Interrupted: ``goes_on``, which is asked between two chunks, says no.
            Unavailable, ObjectMissing, OSError: worth a retry.
        """
        with self._alone({layer.digest for layer in layers}):
            here = {layer.digest: data for layer in layers if (data := self.read(layer.digest)) is not None}
            lacking = {layer.digest: layer for layer in layers if layer.digest not in here}
            wishes = [Wish(name, layer.size, self._blobs / hexdigest(name)) for name, layer in lacking.items()]
            self._downloads.fetch(store, wishes, goes_on)
            return here | {name: self._fetched(name) for name in lacking}

    def bring(self, store: ObjectStore, layers: Sequence[Layer], goes_on: GoesOn = _always) -> None:
        """See to it that the blobs of ``layers`` are here and whole, without holding them in memory.

        Raises:
            as :meth:`fetch`.
        """
        with self._alone({layer.digest for layer in layers}):
            lacking = {layer.digest: layer.size for layer in layers if not self._is_whole(layer.digest)}
            wishes = [Wish(name, size, self._blobs / hexdigest(name)) for name, size in lacking.items()]
            self._downloads.fetch(store, wishes, goes_on)

    def _is_whole(self, name: str) -> bool:
        try:
            with (self._blobs / hexdigest(name)).open("rb") as file:
                return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest() == name
        except OSError:
            return False

    def _fetched(self, name: str) -> bytes:
        data = self.read(name)
        if data is None:
            raise OSError(f"blob {name} was written and cannot be read back: look at the disk")
        return data

    @contextmanager
    def _alone(self, names: set[str]) -> Iterator[None]:
        """Two services may share a backbone: one of them fetches it, the other waits."""
        with self._lock:
            locks = [self._fetching.setdefault(name, threading.Lock()) for name in sorted(names)]
        for lock in locks:
            lock.acquire()
        try:
            yield
        finally:
            for lock in locks:
                lock.release()

    def manifest(self, name: str) -> Release | None:
        """The manifest ``name`` from here; None when it is not here. Raises MalformedRelease when it is damaged."""
        path = self._releases / f"{hexdigest(name)}.json"
        return parse_release(path.read_bytes(), name) if path.is_file() else None

    def kept(self, name: str) -> Release | None:
        """The manifest ``name`` if it is here and whole."""
        try:
            return self.manifest(name)
        except (MalformedRelease, OSError):
            return None

    def keep(self, release: Release) -> None:
        """Write a manifest down."""
        write_durably(self._releases / f"{hexdigest(release.digest)}.json", release.to_bytes())

    def mark_waiting(self, name: str) -> None:
        """``name`` was never this node's to run: it is none of the :meth:`newest` until it is kept again."""
        with suppress(OSError):
            os.utime(self._releases / f"{hexdigest(name)}.json", (0, 0))

    def newest(self, service: str) -> list[str]:
        """Digests of the releases of ``service`` that are here to run, the one written last first."""
        paths = list(self._releases.glob("*.json")) if self._releases.is_dir() else []
        found = []
        for path in sorted(paths, key=lambda p: p.stat().st_mtime, reverse=True):
            if path.stat().st_mtime == 0:
                continue
            with suppress(MalformedRelease, OSError):
                release = self.manifest(f"sha256:{path.stem}")
                if release is not None and release.service == service:
                    found.append(release.digest)
        return found

    def sweep(self, keep: Iterable[str]) -> None:
        """Delete every manifest but ``keep`` and every blob that a node of this profile does not load of them.

        What is being fetched at this moment stays: another service's thread may need it.
        """
        names = {hexdigest(layer.digest) for name in keep for layer in self._layers(name)} | self._busy()
        files = {f"{hexdigest(name)}.json" for name in keep}
        for folder, wanted in ((self._blobs, names), (self._releases, files)):
            for path in folder.iterdir() if folder.is_dir() else ():
                if path.name.removesuffix(".part") not in wanted:
                    with suppress(OSError):
                        path.unlink()

    def _busy(self) -> set[str]:
        with self._lock:
            return {hexdigest(name) for name, lock in self._fetching.items() if lock.locked()}

    def _layers(self, name: str) -> list[Layer]:
        release = self.kept(name)
        try:
            return release.layers_for(self._profile) if release else []
        except NoVariant:
            return []
