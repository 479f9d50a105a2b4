"""The releases a node has on its disk: blobs under their digest, and the manifests that name them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from edgeloop.edge.files import write_durably
from edgeloop.errors import EdgeloopError
from edgeloop.samples.records import digest, hexdigest
from edgeloop.samples.releases import Release, blob_key, parse_release, release_key

if TYPE_CHECKING:
    from edgeloop.clients.objects import ObjectStore


class CorruptBlob(EdgeloopError):
    """Bytes do not have the digest they are named by."""


class Blobs:
    """``<folder>/blobs/sha256/<hex>`` and ``<folder>/releases/<hex>.json``."""

    def __init__(self, folder: Path) -> None:
        self._blobs = folder / "blobs" / "sha256"
        self._releases = folder / "releases"

    def read(self, name: str) -> bytes | None:
        """The blob ``name``, checked; None when it is not here, or no longer whole."""
        path = self._blobs / hexdigest(name)
        try:
            data = path.read_bytes()
        except OSError:
            return None
        if digest(data) != name:
            path.unlink(missing_ok=True)
            return None
        return data

    def fetch(self, store: ObjectStore, name: str, size: int) -> bytes:
        """The blob ``name``, from here or else from ``store``.

        Raises:
            CorruptBlob: the store's bytes are not the ones named.
            StoreUnavailable, ObjectMissing, OSError: worth a retry.
        """
        data = self.read(name)
        if data is not None:
            return data
        data = store.get(blob_key(name))
        if digest(data) != name or len(data) != size:
            raise CorruptBlob(f"blob {name} of {size} bytes came as {digest(data)} of {len(data)}: release it again")
        write_durably(self._blobs / hexdigest(name), data)
        return data

    def manifest(self, name: str) -> Release | None:
        """The manifest ``name`` from here, checked; None when it is not here."""
        path = self._releases / f"{hexdigest(name)}.json"
        return parse_release(path.read_bytes(), name) if path.is_file() else None

    def fetch_manifest(self, store: ObjectStore, service: str, name: str) -> Release:
        """The manifest ``name``, from ``store``.

        Raises:
            MalformedRelease: its bytes are not the ones named, or do not parse.
            StoreUnavailable, ObjectMissing, OSError: worth a retry.
        """
        data = store.get(release_key(service, name))
        release = parse_release(data, name)
        write_durably(self._releases / f"{hexdigest(name)}.json", data)
        return release

    def sweep(self, keep: Iterable[str]) -> None:
        """Delete every manifest but ``keep`` and every blob they do not name."""
        manifests = [m for name in keep if (m := self.manifest(name))]
        names = {hexdigest(layer.digest) for m in manifests for layer in m.layers}
        files = {f"{hexdigest(name)}.json" for name in keep}
        for folder, wanted in ((self._blobs, names), (self._releases, files)):
            for path in folder.iterdir() if folder.is_dir() else ():
                if path.name not in wanted:
                    path.unlink(missing_ok=True)
