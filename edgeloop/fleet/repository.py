"""The channel's metadata in the object store, written so that no crash and no second writer can leave half of a change.

It is a TUF repository (The Update Framework 1.0) with consistent snapshots. A change is written bottom up: contents,
then roles, each under a new version; then ``<n>.snapshot.json``, created only if nobody was faster: that is the
moment at which it is decided; then ``timestamp.json``, which has the snapshot's number. Whoever finds a snapshot that
no timestamp names yet finishes that work before its own.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, TypeVar

from tuf.api.exceptions import RepositoryError, UnsignedMetadataError
from tuf.api.metadata import Metadata, MetaFile, Root, Snapshot, Targets, Timestamp

from edgeloop.clients.objects import ObjectMissing, ObjectStore
from edgeloop.errors import EdgeloopError, Unavailable
from edgeloop.fleet.signing import Keys, role_key
from edgeloop.samples.records import now
from edgeloop.samples.releases import metadata_key

_log = logging.getLogger(__name__)
_ATTEMPTS = 20
#: How long a signature of each role holds. What is past half of it is signed anew by ``refresh``.
LIFETIMES = {
    "root": timedelta(days=365),
    "targets": timedelta(days=365),
    "releases": timedelta(days=90),
    "rings": timedelta(days=90),
    "snapshot": timedelta(days=90),
    "timestamp": timedelta(days=7),
}
T = TypeVar("T", Root, Timestamp, Snapshot, Targets)


class ForeignMetadata(EdgeloopError):
    """Metadata in the store is not what the keys of this channel signed."""


class ForeignKey(EdgeloopError):
    """A key here is not the one that the channel names for its role."""


class ChannelBusy(Unavailable):
    """Others wrote to the channel all the time."""


def parse(kind: type[T], data: bytes, key: str) -> Metadata[T]:
    """Read metadata of this kind; raises ForeignMetadata. Says nothing of its signatures."""
    try:
        found: Metadata[T] = Metadata.from_bytes(data)
    except RepositoryError as error:
        raise ForeignMetadata(f"{key} is no metadata ({error!s:.100}): delete it or restore the store") from error
    if not isinstance(found.signed, kind):
        raise ForeignMetadata(f"{key} is {found.signed.type}, not {kind.type}: delete it or restore the store")
    return found


def verify(delegator: Root | Targets, role: str, found: Metadata[T], key: str) -> T:
    """What ``found`` says, if ``delegator`` lets its signers speak for ``role``; raises ForeignMetadata."""
    try:
        delegator.verify_delegate(role, found.signed_bytes, found.signatures)
    except (UnsignedMetadataError, ValueError) as error:
        raise ForeignMetadata(f"{key} is not signed for {role} ({error!s:.100}): restore the store") from error
    return found.signed


def is_due(role: str, expires: datetime, at: datetime) -> bool:
    """Whether half of the lifetime of ``role`` is over."""
    return expires - at < LIFETIMES[role_key(role)] / 2


class Draft:
    """One consistent state of the channel, and the changes that shall be made to it."""

    def __init__(self, repository: Repository, root: Root, version: int, roles: dict[str, int]) -> None:
        self.root = root
        self.version = version
        self.roles = roles
        """Version of each targets role, without ``targets``' own children being loaded."""
        self.contents: dict[str, bytes] = {}
        self.edited: dict[str, Targets] = {}
        self._repository = repository
        self._loaded: dict[str, Targets] = {}

    def delegator(self, role: str) -> Root | Targets:
        """Who names the keys of ``role``."""
        if role == "targets":
            return self.root
        return self.targets("targets" if role in {"releases", "rings"} else role_key(role))

    def targets(self, role: str) -> Targets:
        """The verified content of ``role``; raises ForeignMetadata, or KeyError when there is no such role."""
        if role not in self._loaded:
            self._loaded[role] = self._repository.targets(self.delegator(role), role, self.roles[role])
        return self._loaded[role]

    def edit(self, role: str) -> Targets:
        """The content of ``role`` to be changed, or only signed anew; empty when the role is new."""
        if role not in self.edited:
            self.edited[role] = self.targets(role) if role in self.roles else Targets()
            self._loaded[role] = self.edited[role]
        return self.edited[role]


class Repository:
    """The metadata of one store, read and written with one folder of keys."""

    def __init__(self, store: ObjectStore, keys: Keys, clock: Callable[[], datetime] = now) -> None:
        self.store = store
        self.keys = keys
        self.clock = clock

    # --- the root

    def root(self) -> Root | None:
        """The newest root, reached from the trusted one by signatures; None before the channel was made."""
        data = self.keys.root()
        if data is None:
            return None
        root = self._self_signed(data, "root.json")
        while (newer := self._get(f"{root.version + 1}.root.json")) is not None:
            root, data = self._successor(root, newer), newer
        self.keys.pin(data)
        return root

    def _successor(self, root: Root, data: bytes) -> Root:
        key = metadata_key(f"{root.version + 1}.root.json")
        newer = self._self_signed(data, key)
        verify(root, "root", parse(Root, data, key), key)
        if newer.version != root.version + 1:
            raise ForeignMetadata(f"{key} says it is version {newer.version}: restore the store")
        return newer

    def _self_signed(self, data: bytes, key: str) -> Root:
        found = parse(Root, data, key)
        return verify(found.signed, "root", found, key)

    def trust(self, data: bytes) -> None:
        """Trust the first root that is found in the store, if the root key here is its only one and signed it.

        Raises:
            ForeignKey: it names another's.
            ForeignMetadata: it names ours and is not signed with it.
        """
        key = metadata_key("1.root.json")
        found = parse(Root, data, key)
        own = self.keys.public("root") if self.keys.has("root") else None
        if own is None or found.signed.roles["root"].keyids != [own.keyid]:
            raise ForeignKey(
                f"the channel in {self.store.url} was signed with other keys than those in {self.keys.folder}:"
                " copy them there with their root.json, or set EDGELOOP_KEYS"
            )
        ours = Root()  # not the root that was found: there our key's name may stand before another's key
        ours.add_key(own, "root")
        verify(ours, "root", found, key)
        self.keys.pin(data)

    def write_root(self, root: Root) -> bytes:
        """Sign ``root`` and publish it under its version; what was written.

        Raises:
            ChannelBusy: there is such a version already.
        """
        root.expires = self._expiry("root")
        data = self._signed(root, "root", root)
        name = f"{root.version}.root.json"
        if not self.store.create(metadata_key(name), data) and self._get(name) != data:
            raise ChannelBusy(f"{metadata_key(name)} was written by another: try again")
        return data

    # --- reading

    def read(self) -> Draft | None:
        """The newest state, verified; None before the channel was made. Finishes what another writer began."""
        root = self.root()
        if root is None:
            return None
        stamp = self.timestamp(root)
        stamped = newest = stamp.version if stamp else 0
        while self.store.size(metadata_key(f"{newest + 1}.snapshot.json")) is not None:
            newest += 1
        if newest == 0:
            return Draft(self, root, 0, {})
        snapshot = self._snapshot(root, newest)
        if newest != stamped:
            self._stamp(root, newest)
        return Draft(self, root, newest, {name.removesuffix(".json"): m.version for name, m in snapshot.meta.items()})

    def timestamp(self, root: Root) -> Timestamp | None:
        """The timestamp; None when there is none that can be believed: the newest snapshot makes another."""
        data = self._get("timestamp.json")
        if data is None:
            return None
        key = metadata_key("timestamp.json")
        try:
            return verify(root, "timestamp", parse(Timestamp, data, key), key)
        except ForeignMetadata as error:
            _log.error("%s", error)
            return None

    def targets(self, delegator: Root | Targets, role: str, version: int) -> Targets:
        """One version of a targets role, verified."""
        key = metadata_key(f"{version}.{role}.json")
        found = verify(delegator, role, parse(Targets, self.store.get(key), key), key)
        return self._of_version(found, version, key)

    def _snapshot(self, root: Root, version: int) -> Snapshot:
        key = metadata_key(f"{version}.snapshot.json")
        found = verify(root, "snapshot", parse(Snapshot, self.store.get(key), key), key)
        return self._of_version(found, version, key)

    def _of_version(self, found: T, version: int, key: str) -> T:
        if found.version != version:
            raise ForeignMetadata(f"{key} says it is version {found.version}: restore the store")
        return found

    def _get(self, name: str) -> bytes | None:
        try:
            return self.store.get(metadata_key(name))
        except ObjectMissing:
            return None

    # --- writing

    def commit(self, change: Callable[[Draft], bool]) -> bool:
        """Apply ``change`` to the newest state; again from the start when another writer was faster.

        Args:
            change: edits the draft; False when there is nothing to do.

        Returns:
            Whether something was written.

        Raises:
            KeyUnavailable, ForeignKey, ForeignMetadata: nothing has changed.
            StoreUnavailable: nothing has changed, or all of it; call again.
            ChannelBusy: every attempt was overtaken.
        """
        for _ in range(_ATTEMPTS):
            draft = self.read()
            if draft is None or not change(draft):
                return False
            if self._write(draft):
                self._stamp(draft.root, draft.version + 1)
                return True
            time.sleep(random.uniform(0, 0.05))
        raise ChannelBusy(f"the channel in {self.store.url} was changed by others {_ATTEMPTS} times: try again")

    def _write(self, draft: Draft) -> bool:
        for key, data in draft.contents.items():
            self.store.create(key, data)
        roles = draft.roles | {role: self._write_role(draft, role) for role in draft.edited}
        meta = {f"{role}.json": MetaFile(version) for role, version in roles.items()}
        number = draft.version + 1
        snapshot = Snapshot(number, None, self._expiry("snapshot"), meta)
        data = self._signed(snapshot, "snapshot", draft.root)
        name = f"{number}.snapshot.json"
        # After a broken connection the one that is there may be this very one.
        return self.store.create(metadata_key(name), data) or self._get(name) == data

    def _write_role(self, draft: Draft, role: str) -> int:
        """Write ``role`` under the next free version: one left by a writer that was cut off is never replaced."""
        targets = draft.edited[role]
        targets.version = draft.roles.get(role, 0)
        targets.expires = self._expiry(role)
        while True:
            targets.version += 1
            data = self._signed(targets, role, draft.delegator(role))
            if self.store.create(metadata_key(f"{targets.version}.{role}.json"), data):
                return targets.version

    def _stamp(self, root: Root, version: int) -> None:
        """Name snapshot ``version``, or a newer one that has come meanwhile, as the present one."""
        while True:
            stamp = Timestamp(version, None, self._expiry("timestamp"), MetaFile(version))
            self.store.put(metadata_key("timestamp.json"), self._signed(stamp, "timestamp", root))
            if self.store.size(metadata_key(f"{version + 1}.snapshot.json")) is None:
                return
            version += 1
            self._snapshot(root, version)

    def _signed(self, signed: Root | Timestamp | Snapshot | Targets, role: str, delegator: Root | Targets) -> bytes:
        made: Metadata[Any] = Metadata(signed)
        for signer in self.keys.signers(role):
            made.sign(signer, append=True)
        try:
            delegator.verify_delegate(role, made.signed_bytes, made.signatures)
        except (UnsignedMetadataError, ValueError) as error:
            raise ForeignKey(
                f"{self.keys.folder / role_key(role)}.pem is not the key that the channel names for {role}:"
                " put the right one there or set EDGELOOP_KEYS"
            ) from error
        return made.to_bytes()

    def _expiry(self, role: str) -> datetime:
        return (self.clock() + LIFETIMES[role_key(role)]).replace(microsecond=0)
