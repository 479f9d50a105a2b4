"""What the fleet says to this node, believed only as far as its signatures reach from the root that it was given.

The channel is a TUF repository in the object store, and this its client: signatures, expiry and going back are
checked by ``tuf``; the store is any store. When nothing has changed, a look costs one GET of ``timestamp.json``.
The library takes some 12 MB and is imported at the first look.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from edgeloop.clients.objects import ObjectMissing
from edgeloop.edge.releases.place import Place
from edgeloop.errors import BadInput, EdgeloopError
from edgeloop.samples.records import hexdigest
from edgeloop.samples.releases import (
    MalformedRelease,
    Release,
    Wanted,
    metadata_key,
    parse_release,
    parse_wanted,
    release_key,
    wanted_object,
    wanted_target,
)

if TYPE_CHECKING:
    from tuf.api.metadata import TargetFile
    from tuf.ngclient import FetcherInterface, Updater

    from edgeloop.clients.objects import ObjectStore

_log = logging.getLogger(__name__)
#: Everything is checked anew after so long, also when the timestamp is the same: a new root, and what has run out.
FULL_CHECK_SECONDS = 3600.0
#: The largest timestamp, record of a ring and manifest that are read.
_TIMESTAMP_BYTES = 16_384
_LARGEST = 5_000_000


class UnusableRoot(BadInput):
    """The file that ``trust`` of node.yaml names is no root of a channel."""


class NoTrust(EdgeloopError):
    """node.yaml names no root, so nothing that the store says can be believed."""


class UnverifiedChannel(EdgeloopError):
    """The channel cannot be believed: something is missing, or not what its signatures say."""


class UnsignedChannel(UnverifiedChannel):
    """A signature of the channel is missing or wrong."""


class ExpiredChannel(UnverifiedChannel):
    """The channel's signatures have run out: somebody holds new ones back, or nobody signs any more."""


class RolledBackChannel(UnverifiedChannel):
    """The channel says less than it has said before."""


class UnapprovedRelease(EdgeloopError):
    """A ring wants a release that the approver never signed."""


class CorruptManifest(EdgeloopError):
    """The store holds other bytes than the approver signed."""


class Channel:
    """The verified channel of one node. Methods may be called from any thread.

    Args:
        store: opens the store, or gives the open one; raises StoreUnavailable.
        root: the pinned root (``trust`` of node.yaml); None follows nothing.
        folder: where what was verified is kept over a restart, so that the channel cannot go back.
        ring: this node's ring, or where it is by what the channel says.
    """

    def __init__(
        self,
        store: Callable[[], ObjectStore],
        root: bytes | None,
        folder: Path,
        ring: int | Place,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._root = root
        self._folder = folder
        self._place = Place(ring) if isinstance(ring, int) else ring
        self._clock = clock
        self._lock = threading.Lock()
        self._updater: Updater | None = None
        self._timestamp = b""
        self._checked = 0.0
        self._wanted: dict[str, Wanted | None] = {}

    def wanted(self, service: str) -> Wanted | None:
        """What this node's ring is to run; None before the first time.

        Raises:
            NoTrust, UnverifiedChannel: nothing is believed.
            StoreUnavailable, OSError: the store or the disk is away.
        """
        with self._lock, _explained():
            updater = self._refreshed()
            if updater is None:
                return None
            if service not in self._wanted:
                self._wanted[service] = self._read_wanted(updater, service)
            return self._wanted[service]

    def last(self, service: str) -> Wanted | None:
        """What :meth:`wanted` said last; nothing is read."""
        return self._wanted.get(service)

    def release(self, service: str, name: str, kept: Release | None = None) -> Release:
        """The manifest ``name``, if the approver lets it run and its bytes are the ones signed.

        ``kept`` is the manifest from the disk: the store is not asked for it again.

        Raises:
            UnapprovedRelease: the approver does not.
            CorruptManifest: the store's bytes are others.
            MalformedRelease: what was signed does not parse.
            NoTrust, UnverifiedChannel, StoreUnavailable, OSError: as :meth:`wanted`.
        """
        with self._lock, _explained():
            updater = self._updater or self._refreshed()
            key = release_key(service, name)
            target = updater.get_targetinfo(key) if updater else None
            if target is None or target.hashes.get("sha256") != hexdigest(name):
                raise UnapprovedRelease(f"release {name} of {service} is not approved: approve it or point elsewhere")
            release = kept or parse_release(self._manifest(key, target), name)
            if release.digest != name or release.service != service:
                raise MalformedRelease(f"release {name} is of another service or not canonical: release it again")
            return release

    def _manifest(self, key: str, target: TargetFile) -> bytes:
        """Read twice before the store is blamed: the link may be at fault."""
        from tuf.api.exceptions import LengthOrHashMismatchError

        try:
            return self._content(key, target)
        except LengthOrHashMismatchError:
            with suppress(LengthOrHashMismatchError):
                return self._content(key, target)
            raise CorruptManifest(f"{key} is not what was signed: release the version again") from None

    def _refreshed(self) -> Updater | None:
        """A client that has seen the newest state; None when the channel was not made yet."""
        if self._root is None:
            raise NoTrust("node.yaml has no trust: copy the channel's root.json beside it and set  trust: root.json")
        data = self._newest_timestamp()
        if data is None:
            return None
        late = self._clock() - self._checked > FULL_CHECK_SECONDS
        if self._updater is None or data != self._timestamp or late:
            self._updater = None
            updater = self._make_updater(self._root, data)
            updater.refresh()
            moved_to = self._place.read(updater, self._content)
            self._updater, self._timestamp, self._checked = updater, data, self._clock()
            self._wanted.clear()
            self._place.go(moved_to)
        return self._updater

    def _newest_timestamp(self) -> bytes | None:
        key = metadata_key("timestamp.json")
        try:
            return self._store().get_range(key, 0, _TIMESTAMP_BYTES + 1)
        except ObjectMissing as error:
            if (self._folder / "timestamp.json").exists():
                raise UnverifiedChannel(f"{key} was in the store and is gone: publish again or restore it") from error
            return None

    def _make_updater(self, root: bytes, timestamp: bytes) -> Updater:
        from tuf.ngclient import Updater

        fetcher = _fetcher(self._store, {metadata_key("timestamp.json"): timestamp})
        return Updater(str(self._writable()), metadata_key(""), fetcher=fetcher, bootstrap=root)

    def _writable(self) -> Path:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self._folder):
                return self._folder
        except OSError as error:
            self._folder = Path(tempfile.mkdtemp(prefix="edgeloop-channel-"))
            weakref.finalize(self, shutil.rmtree, self._folder, True)
            _log.error("what the channel said is kept until a restart only", extra={"error": str(error)})
            return self._folder

    def _read_wanted(self, updater: Updater, service: str) -> Wanted | None:
        ring = self._place.ring
        path = wanted_target(service, ring)
        target = updater.get_targetinfo(path)
        if target is None:
            return None
        key = wanted_object(service, ring, target.hashes["sha256"])
        wanted = parse_wanted(self._content(key, target), key)
        if (wanted.service, wanted.ring) != (service, ring):
            raise UnverifiedChannel(f"{path} is of {wanted.service}, ring {wanted.ring}: point the ring again")
        return wanted

    def _content(self, key: str, target: TargetFile) -> bytes:
        if target.length > _LARGEST:
            raise UnverifiedChannel(f"{key} is to have {target.length} bytes, more than {_LARGEST}: publish it again")
        data = self._store().get_range(key, 0, target.length + 1)
        target.verify_length_and_hashes(data)
        return data


def read_root(path: Path) -> bytes:
    """The root that a node trusts.

    Raises:
        UnusableRoot: the file cannot be read or is no root.
    """
    import json

    try:
        data = path.read_bytes()
        kind = json.loads(data)["signed"]["_type"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UnusableRoot(f"{path} cannot be read as a root ({error!s:.100}): copy the channel's root.json") from error
    if kind != "root":
        raise UnusableRoot(f"{path} is {kind!s:.40} metadata, not a root: copy the channel's root.json")
    return data


def _fetcher(store: Callable[[], ObjectStore], read: dict[str, bytes]) -> FetcherInterface:
    """``read`` was read just now, and is not again unless a new root came, which may have it signed with other keys."""
    from tuf.api.exceptions import DownloadHTTPError, DownloadLengthMismatchError
    from tuf.ngclient import FetcherInterface

    class StoreFetcher(FetcherInterface):
        """Metadata from the object store: whole and bounded, with the store's own errors."""

        def _fetch(self, url: str) -> Iterator[bytes]:
            yield self.download_bytes(url, _LARGEST)

        def download_bytes(self, url: str, max_length: int) -> bytes:
            try:
                data = read.pop(url, None) or store().get_range(url, 0, max_length + 1)
            except ObjectMissing as error:
                raise DownloadHTTPError(str(error), 404) from error
            if url.endswith(".root.json"):
                read.clear()
            if len(data) > max_length:
                raise DownloadLengthMismatchError(f"{url} has more than {max_length} bytes")
            return data

    return StoreFetcher()


@contextmanager
def _explained() -> Iterator[None]:
    """Turn the library's errors into ours."""
    try:
        yield
    except (EdgeloopError, OSError):
        raise
    except Exception as error:
        found = _explain(error)
        if found is None:
            raise
        raise found from error


def _explain(error: Exception) -> UnverifiedChannel | None:
    """The error that a user is told, with the next step; None for what no store and no signature can cause."""
    from tuf.api import exceptions as tuf

    if isinstance(error, tuf.ExpiredMetadataError):
        return ExpiredChannel(f"the channel has run out ({error}): refresh it, and look at this node's clock")
    if isinstance(error, tuf.BadVersionNumberError):
        return RolledBackChannel(f"the channel went back ({error}): restore the store or publish again")
    if isinstance(error, tuf.UnsignedMetadataError):
        return UnsignedChannel(f"the channel is not signed as it must be ({error}): publish it again")
    if isinstance(error, tuf.DownloadHTTPError):
        return UnverifiedChannel(f"the channel is not whole ({error})")
    if isinstance(error, tuf.RepositoryError | tuf.DownloadError | KeyError | ValueError):
        return UnverifiedChannel(f"the channel cannot be believed ({error!s:.200}): publish it again")
    return None
