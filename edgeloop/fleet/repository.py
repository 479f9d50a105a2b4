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
from datetime import datetime
from typing import Any

from tuf.api.exceptions import UnsignedMetadataError
from tuf.api.metadata import Metadata, MetaFile, Root, Snapshot, Targets, Timestamp

from edgeloop.clients.objects import ObjectMissing, ObjectStore
from edgeloop.fleet.draft import Draft
from edgeloop.fleet.metadata import (
    LIFETIMES,
    ChannelBusy,
    ForeignKey,
    ForeignMetadata,
    StaleRequest,
    T,
    parse,
    verify,
)
from edgeloop.fleet.signing import Keys, role_key
from edgeloop.samples.records import now
from edgeloop.samples.releases import metadata_key

_log = logging.getLogger(__name__)
_ATTEMPTS = 60
#: How often a key may not fit before it is the wrong one: another may be rotating it at this moment.
_FOREIGN = 3


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
        root.expires = self.expiry("root")
        data = self.signed(root, "root", root)
        name = f"{root.version}.root.json"
        if not self.store.create(metadata_key(name), data) and self._get(name) != data:
            raise ChannelBusy(f"{metadata_key(name)} was written by another: try again")
        return data

    # --- reading

    def read(self, *, finish: bool = True) -> Draft | None:
        """The newest state, verified; None before the channel was made.

        Args:
            finish: give a snapshot that another writer left without a timestamp the one that it lacks.
        """
        root = self.root()
        if root is None:
            return None
        stamp = self.timestamp(root)
        stamped = newest = self._stamped(stamp) if stamp else 0
        while self.store.size(metadata_key(f"{newest + 1}.snapshot.json")) is not None:
            newest += 1
        if newest == 0:
            return Draft(self.targets, root, 0, {})
        root, snapshot = self._signed_by_now(root, newest)
        if finish and newest != stamped:
            self._stamp(root, newest)
        return Draft(
            self.targets, root, newest, {name.removesuffix(".json"): m.version for name, m in snapshot.meta.items()}
        )

    def _stamped(self, stamp: Timestamp) -> int:
        """The snapshot that the timestamp names; 0 when there is none, as a thief of its key may write."""
        if self.store.size(metadata_key(f"{stamp.version}.snapshot.json")) is not None:
            return stamp.version
        _log.error("the timestamp names snapshot %d, which is missing: rotate the key of timestamp", stamp.version)
        return 0

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

    def snapshot(self, root: Root, version: int) -> Snapshot:
        """One snapshot, verified."""
        key = metadata_key(f"{version}.snapshot.json")
        found = verify(root, "snapshot", parse(Snapshot, self.store.get(key), key), key)
        return self._of_version(found, version, key)

    def _signed_by_now(self, root: Root, version: int) -> tuple[Root, Snapshot]:
        """A snapshot, and the root by which it is signed: a newer one if its key was replaced since."""
        try:
            return root, self.snapshot(root, version)
        except ForeignMetadata:
            newer = self.root()
            if newer is None or newer.version == root.version:
                raise
            return newer, self.snapshot(newer, version)

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
            KeyUnavailable, ForeignKey, ForeignMetadata, StaleRequest: nothing has changed.
            StoreUnavailable: nothing has changed, or all of it; call again.
            ChannelBusy: every attempt was overtaken.
        """
        unfit = 0
        for _ in range(_ATTEMPTS):
            try:
                draft = self.read()
                if draft is None or not change(draft):
                    return False
                if self._write(draft):
                    self._stamp_again(draft)
                    return True
            except ForeignKey:
                unfit += 1
                if unfit == _FOREIGN:
                    raise
            time.sleep(random.uniform(0, 0.05))
        raise ChannelBusy(f"the channel in {self.store.url} was changed by others {_ATTEMPTS} times: try again")

    def _stamp_again(self, draft: Draft) -> None:
        """The timestamp of what was written just now, with the key that the newest root names for it."""
        try:
            self._stamp(draft.root, draft.version + 1)
        except ForeignKey:
            self._stamp(self.root() or draft.root, draft.version + 1)

    def _write(self, draft: Draft) -> bool:
        for key, data in draft.contents.items():
            self.store.create(key, data)
        roles = draft.roles | {role: self._place(role, *signed) for role, signed in draft.signed.items()}
        roles |= {role: self._write_role(draft, role) for role in draft.edited}
        meta = {f"{role}.json": MetaFile(version) for role, version in roles.items()}
        number = draft.version + 1
        snapshot = Snapshot(number, None, self.expiry("snapshot"), meta)
        data = self.signed(snapshot, "snapshot", draft.root)
        name = f"{number}.snapshot.json"
        # After a broken connection the one that is there may be this very one.
        return self.store.create(metadata_key(name), data) or self._get(name) == data

    def _place(self, role: str, version: int, data: bytes) -> int:
        name = f"{version}.{role}.json"
        if not self.store.create(metadata_key(name), data) and self._get(name) != data:
            raise StaleRequest(f"{metadata_key(name)} was written meanwhile: ask for a new signature")
        return version

    def _write_role(self, draft: Draft, role: str) -> int:
        """Write ``role`` under the next free version: one left by a writer that was cut off is never replaced."""
        targets = draft.edited[role]
        targets.version = draft.roles.get(role, 0)
        targets.expires = self.expiry(role)
        while True:
            targets.version += 1
            data = self.signed(targets, role, draft.delegator(role))
            if self.store.create(metadata_key(f"{targets.version}.{role}.json"), data):
                return targets.version

    def _stamp(self, root: Root, version: int) -> None:
        """Name snapshot ``version``, or a newer one that has come meanwhile, as the present one.

        A store knows no compare-and-swap, so what is newest is looked up right before it is named, and once more after:
        a writer that was held up in between names an older one for as long as that look takes.
        """
        named = 0
        while True:
            while self.store.size(metadata_key(f"{version + 1}.snapshot.json")) is not None:
                version += 1
                root, _ = self._signed_by_now(root, version)
            if version == named:
                return
            stamp = Timestamp(version, None, self.expiry("timestamp"), MetaFile(version))
            self.store.put(metadata_key("timestamp.json"), self.signed(stamp, "timestamp", root))
            named = version

    def signed(self, signed: Root | Timestamp | Snapshot | Targets, role: str, delegator: Root | Targets) -> bytes:
        """``signed`` with the signatures of all keys of ``role`` that are here.

        Raises:
            KeyUnavailable: there is none.
            ForeignKey: they are not those that ``delegator`` names.
        """
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

    def expiry(self, role: str) -> datetime:
        """Until when what is signed for ``role`` now holds."""
        return (self.clock() + LIFETIMES[role_key(role)]).replace(microsecond=0)
