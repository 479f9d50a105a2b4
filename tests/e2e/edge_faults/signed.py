"""The channel as its owner writes it, and as one does who can write to the store, or has stolen the online keys."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgeloop.clients.objects import MemoryStore, ObjectMissing, ObjectStore
from edgeloop.fleet.draft import Draft
from edgeloop.fleet.pointings import point
from edgeloop.fleet.publisher import Publisher
from edgeloop.fleet.repository import Repository
from edgeloop.fleet.signing import Keys
from edgeloop.samples.records import canonical
from edgeloop.samples.releases import Release, Wanted, metadata_key, release_key

_TIMESTAMP = metadata_key("timestamp.json")


class SignedChannel:
    """The channel of one service and ring; its keys are in ``folder/keys``, an attacker's in ``folder/stolen``."""

    def __init__(self, store: ObjectStore, folder: Path, service: str, ring: int) -> None:
        self._store = store
        self._folder = folder
        self._service = service
        self._ring = ring
        self._publisher = Publisher(store, Keys(folder / "keys"))
        self._root = self._publisher.ensure()
        self._first = store.get(_TIMESTAMP)
        self._before: dict[str, bytes | None] = {}

    def settings(self) -> dict[str, object]:
        """What node.yaml must say to trust it; writes the pinned root beside it."""
        (self._folder / "root.json").write_bytes(self._root)
        return {"trust": "root.json"}

    def approve(self, release: Release) -> None:
        """Allow the release to run at all."""
        self._publisher.approve(self._service, release.digest)

    def point(self, release: Release) -> None:
        """Let the ring run the release."""
        self._publisher.point(self._service, self._ring, release.digest)

    def attack(self, release: Release, variant: int) -> str:
        """Try to make nodes run a release that nobody approved; returns how."""
        way = WAYS[variant % len(WAYS)]
        way(self, release)
        return way.__name__

    def heal(self) -> None:
        """Put everything back that an attack has overwritten, and take away what it has added."""
        for key, data in self._before.items():
            if data is None:
                self._store.delete(key)
            else:
                self._store.put(key, data)
        self._before = {}

    def _overwrite(self, key: str, data: bytes) -> None:
        if key not in self._before:
            self._before[key] = self._read(key)
        self._store.put(key, data)

    def _read(self, key: str) -> bytes | None:
        try:
            return self._store.get(key)
        except ObjectMissing:
            return None

    # --- the attacks

    def _sign_with_other_keys(self, release: Release) -> None:
        """A whole channel of the attacker's own, written over the true one, newer than it and whole in itself."""
        own = MemoryStore()
        forged = Publisher(own, Keys(self._folder / "stolen"))
        forged.ensure()
        for info in self._store.list(f"releases/{self._service}"):
            own.put(info.key, self._store.get(info.key))
        forged.approve(self._service, release.digest)
        for ring in range(self._version()):  # until it is newer than the true one
            forged.point(self._service, ring + 1, release.digest)
        forged.point(self._service, self._ring, release.digest)
        for info in own.list("channel"):
            if "root.json" not in info.key:
                self._overwrite(info.key, own.get(info.key))

    def _version(self) -> int:
        version: int = json.loads(self._store.get(_TIMESTAMP))["signed"]["version"]
        return version

    def _change_what_is_signed(self, _release: Release) -> None:
        self._overwrite(_TIMESTAMP, self._forged(lambda stamp: stamp["signed"].update(version=self._version() + 1)))

    def _leave_no_signature(self, _release: Release) -> None:
        self._overwrite(_TIMESTAMP, self._forged(lambda stamp: stamp.update(signatures=[])))

    def _forged(self, change: Callable[[dict[str, Any]], None]) -> bytes:
        stamp: dict[str, Any] = json.loads(self._store.get(_TIMESTAMP))
        change(stamp)
        return json.dumps(stamp).encode()

    def _go_back(self, _release: Release) -> None:
        """The very first timestamp again: signed, and long since replaced."""
        self._overwrite(_TIMESTAMP, self._first)

    def _change_the_manifest(self, release: Release) -> None:
        """Approved, then another under its name, which stays: nothing else has that name."""
        self.approve(release)
        self._store.put(release_key(self._service, release.digest), _other(release))
        self.point(release)

    def _steal_the_rings_key(self, release: Release) -> None:
        """The key that is online every day points the ring to what the approver never signed."""
        former = self._publisher.wanted(self._service, self._ring)
        sequence = former.sequence + 1 if former else 1
        record = Wanted(service=self._service, ring=self._ring, release=release.digest, sequence=sequence)
        keys = Keys(self._folder / "keys")

        def change(draft: Draft) -> bool:
            point(draft, keys, record)
            return True

        Repository(self._store, keys).commit(change)

    def _write_the_old_record(self, release: Release) -> None:
        """The record that nodes believed before the channel was signed."""
        record = Wanted(service=self._service, ring=self._ring, release=release.digest, sequence=1_000_000)
        data = canonical(record.model_dump(mode="json"))
        self._overwrite(f"channel/{self._service}/ring-{self._ring}.json", data)


#: What an attacker tries.
WAYS: tuple[Callable[[SignedChannel, Release], None], ...] = (
    SignedChannel._sign_with_other_keys,
    SignedChannel._change_what_is_signed,
    SignedChannel._leave_no_signature,
    SignedChannel._go_back,
    SignedChannel._change_the_manifest,
    SignedChannel._steal_the_rings_key,
    SignedChannel._write_the_old_record,
)


def _other(release: Release) -> bytes:
    """The manifest of another release."""
    return release.model_copy(update={"dataset": "another"}).to_bytes()
