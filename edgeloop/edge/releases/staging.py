"""Releases before they serve: approved, fetched, verified and kept, so that a switch needs nothing of the network.

What is wrong with a release's bytes, its variant or its config is found here, while the former one still serves and
before any node of the ring has switched.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext, suppress
from typing import TYPE_CHECKING

from edgeloop.clients.models import FailedProbe, UnloadableModel
from edgeloop.edge.memory import ModelTooBig
from edgeloop.edge.releases.blobs import Blobs
from edgeloop.edge.releases.channel import Channel, CorruptManifest, UnapprovedRelease
from edgeloop.edge.releases.downloads import CorruptBlob, DiskFull
from edgeloop.edge.releases.loading import Loader
from edgeloop.errors import EdgeloopError
from edgeloop.samples.releases import Layer, MalformedRelease, NoVariant, Release

if TYPE_CHECKING:
    from edgeloop.clients.objects import ObjectStore

#: While something is fetched, the channel is read so often.
LOOK_SECONDS = 10.0
#: Here trying again may help: the store is mended, the release approved, the memory free.
PASSING = (CorruptBlob, DiskFull, CorruptManifest, UnapprovedRelease, ModelTooBig)
#: The release is at fault: trying again changes nothing.
FAULTS = (MalformedRelease, NoVariant, UnloadableModel, FailedProbe)


class Staging:
    """The releases that wait, by service. A service is polled by one thread at a time."""

    def __init__(
        self, channel: Channel, blobs: Blobs, loader: Loader, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._channel = channel
        self._blobs = blobs
        self._loader = loader
        self._clock = clock
        self._waiting: dict[str, str] = {}

    def waiting(self, service: str) -> str | None:
        """Digest of the release that is here, whole, since this process looked."""
        return self._waiting.get(service)

    def forget(self, service: str) -> None:
        """Nothing waits any more."""
        self._waiting.pop(service, None)

    def stage(self, service: str, name: str, store: ObjectStore) -> bool:
        """Have ``name`` ready, without loading it; whether it was not before. Its blobs are read once per process.

        Raises:
            UnapprovedRelease, CorruptManifest, MalformedRelease, NoVariant, UnloadableModel, ModelTooBig, CorruptBlob,
                DiskFull: it cannot be had ready.
            Unavailable, ObjectMissing, OSError: worth a retry; so is Interrupted, when the record has changed.
        """
        if self._waiting.get(service) == name:
            self._channel.release(service, name, self._blobs.kept(name))  # it may have been withdrawn since
            return False
        release = self._approved(service, name)
        self._blobs.mark_waiting(name)
        needed = self._loader.needed(release)
        self._blobs.bring(store, needed, self._looking(service))
        self._loader.check_config(release, {la.role: self._read(la) for la in needed if la.role == "config"})
        self._waiting[service] = name
        return True

    def _read(self, layer: Layer) -> bytes:
        data = self._blobs.read(layer.digest)
        if data is None:  # between two lines of ours: no fault of the release
            raise OSError(f"blob {layer.digest} was here and is gone: it is fetched again")
        return data

    def take(self, service: str, name: str, store: ObjectStore) -> tuple[Release, dict[str, bytes]]:
        """``name`` with its layers by role, to be loaded; what is here already is not asked of ``store``.

        Raises:
            as :meth:`stage`.
        """
        release = self._approved(service, name)
        needed = self._loader.needed(release)
        blobs = self._blobs.fetch(store, needed, self._looking(service))
        return release, {layer.role: blobs[layer.digest] for layer in needed}

    def _looking(self, service: str) -> Callable[[], bool]:
        """Whether the channel says what it says now, looked at now and then: a long download must hide no way back."""
        before, looked = self._channel.last(service), self._clock()

        def goes_on() -> bool:
            nonlocal looked
            if self._clock() - looked < LOOK_SECONDS:
                return True
            looked = self._clock()
            try:
                return self._channel.wanted(service) == before
            except (EdgeloopError, OSError):
                return True

        return goes_on

    def local(self, name: str) -> tuple[Release, dict[str, bytes]] | None:
        """``name`` with those of its layers that are on the disk; None where not even its manifest is.

        Raises:
            MalformedRelease, NoVariant, UnrunnableVariant, OSError: it cannot be read, or is not for this node.
        """
        release = self._blobs.manifest(name)
        if release is None:
            return None
        found = {layer.role: self._blobs.read(layer.digest) for layer in self._loader.needed(release)}
        return release, {role: data for role, data in found.items() if data is not None}

    def _approved(self, service: str, name: str) -> Release:
        """The manifest, on the disk from here on, of a release that may run and has room in memory."""
        kept = self._blobs.kept(name)
        release = self._channel.release(service, name, kept)
        self._loader.check_room(release)
        with suppress(OSError) if kept else nullcontext():  # on a full disk, what is there must do
            self._blobs.keep(release)
        return release
