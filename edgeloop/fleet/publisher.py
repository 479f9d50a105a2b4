"""What the cloud says over the signed channel: which releases may run at all, and which ring runs which of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime

from tuf.api.metadata import Root, TargetFile, Targets

from edgeloop.clients.objects import ObjectMissing, ObjectStore
from edgeloop.fleet.channel import NotApproved, Pointing
from edgeloop.fleet.delegations import begin, service_role
from edgeloop.fleet.repository import Draft, ForeignMetadata, Repository
from edgeloop.fleet.signing import Keys
from edgeloop.fleet.upkeep import refresh, rotate
from edgeloop.samples.records import digest, hexdigest, now
from edgeloop.samples.releases import (
    MalformedRelease,
    Wanted,
    parse_release,
    parse_wanted,
    release_key,
    wanted_object,
    wanted_target,
)

#: Releases of a service that stay approved: the newest, and those that a ring is to run.
APPROVED = 64


class Publisher:
    """The signed channel of one store. Every method may be called again, by any process, at any time."""

    def __init__(self, store: ObjectStore, keys: Keys, clock: Callable[[], datetime] = now) -> None:
        self._store = store
        self._keys = keys
        self._clock = clock
        self._repository = Repository(store, keys, clock)
        self._is_made = False

    # --- set-up

    def ensure(self) -> bytes:
        """Make keys and metadata if there are none, and return the root that nodes are to trust.

        Raises:
            ForeignKey: the store's channel was signed with other keys.
            KeyUnavailable: a key of the set-up is not in the folder of keys.
        """
        if not self._is_made:
            self._ensure_root()
            self._repository.commit(self._begin)
            self._is_made = True
        self.refresh()
        root = self._keys.root()
        assert root is not None
        return root

    def _ensure_root(self) -> None:
        pinned, found = self._keys.root(), self._found("1.root.json")
        if pinned is None and found is not None:
            self._repository.trust(found)
        elif pinned is None:
            self._keys.ensure()
            self._keys.pin(self._repository.write_root(self._new_root()))
        elif found is None:  # these keys on another store
            root = self._repository.root()
            assert root is not None
            self._store.create(f"channel/{root.version}.root.json", pinned)

    def _found(self, name: str) -> bytes | None:
        try:
            return self._store.get(f"channel/{name}")
        except ObjectMissing:
            return None

    def _new_root(self) -> Root:
        root = Root(version=1, consistent_snapshot=True)
        for role in ("root", "targets", "snapshot", "timestamp"):
            root.add_key(self._keys.public(role), role)
        return root

    def _begin(self, draft: Draft) -> bool:
        """``targets`` and the two roles below it; nothing when they are there."""
        if "targets" in draft.roles:
            return False
        begin(draft, self._keys)
        return True

    # --- releases

    def approve(self, service: str, release: str) -> None:
        """Let ``release`` run. Signed with the approver's key, ``releases``.

        Raises:
            MalformedRelease: there is no such manifest, or it is not of this service.
            KeyUnavailable: this machine may not approve.
        """
        if not self._is_made:
            self.ensure()
        data = self._manifest(service, release)

        def change(draft: Draft) -> bool:
            if _allows(draft, service, release):
                return False
            self._allow(draft, service, release, data)
            return True

        self._repository.commit(change)

    def _allow(self, draft: Draft, service: str, release: str, data: bytes) -> None:
        targets = service_role(draft, "releases", service, self._keys)
        path = release_key(service, release)
        at = {"custom": {"at": self._clock().isoformat()}}
        targets.targets[path] = TargetFile(len(data), {"sha256": hexdigest(release)}, path, at)
        _prune(targets, _named(self._all_wanted(draft, service)))

    def withdraw(self, service: str, release: str) -> None:
        """Never let ``release`` be loaded again; nodes that run it go on until their ring is pointed elsewhere."""

        def change(draft: Draft) -> bool:
            if not _allows(draft, service, release):
                return False
            del draft.edit(f"releases-{service}").targets[release_key(service, release)]
            return True

        self._repository.commit(change)

    def _manifest(self, service: str, release: str) -> bytes:
        key = release_key(service, release)
        try:
            data = self._store.get(key)
        except ObjectMissing as error:
            raise MalformedRelease(f"there is no {key} to approve: release the version again") from error
        if parse_release(data, release).service != service:
            raise MalformedRelease(f"{key} is of another service: release the version again")
        return data

    # --- rings

    def wanted(self, service: str, ring: int) -> Wanted | None:
        """What ``ring`` is to run, verified; None before the first time."""
        draft = self._repository.read()
        return self._wanted(draft, service, ring) if draft else None

    def point(self, service: str, ring: int, release: str) -> tuple[Wanted, bool]:
        """Let all of ``ring`` run ``release``: see :meth:`point_many`."""
        return self.point_many(service, {ring: Pointing(release)})[ring]

    def point_many(self, service: str, rings: Mapping[int, Pointing]) -> dict[int, tuple[Wanted, bool]]:
        """Let each ring run what its pointing says; the records, and whether each is new.

        One commit, signed with the online key ``rings``; nothing is written when nothing changes.

        Raises:
            NotApproved: a release may not run at all; no ring was pointed anywhere.
            StoreUnavailable: the rings may be pointed already or not; call again.
        """
        found: dict[int, tuple[Wanted, bool]] = {}

        def change(draft: Draft) -> bool:
            found.clear()
            for name in sorted(_named(rings.values())):
                if not _allows(draft, service, name):
                    raise NotApproved(f"release {name} of {service} is not approved: release the version again")
            found.update({ring: self._pointed(draft, service, ring, to) for ring, to in rings.items()})
            fresh = [record for record, is_new in found.values() if is_new]
            return self._want(draft, *fresh)

        self._repository.commit(change)
        if len(found) < len(rings):
            raise NotApproved(f"no release of {service} is approved: there is no channel yet, release a version")
        return found

    def _pointed(self, draft: Draft, service: str, ring: int, to: Pointing) -> tuple[Wanted, bool]:
        former = self._wanted(draft, service, ring)
        if former and (former.release, former.next) == (to.release, to.next):
            return former, False
        sequence = former.sequence + 1 if former else 1
        return Wanted(service=service, ring=ring, release=to.release, sequence=sequence, next=to.next), True

    def _want(self, draft: Draft, *records: Wanted) -> bool:
        """Sign these records; whether there were any."""
        for record in records:
            data = record.to_bytes()
            path = wanted_target(record.service, record.ring)
            hashes = {"sha256": hexdigest(digest(data))}
            target = TargetFile(len(data), hashes, path)
            service_role(draft, "rings", record.service, self._keys).targets[path] = target
            draft.contents[wanted_object(record.service, record.ring, digest(data))] = data
        return bool(records)

    def _wanted(self, draft: Draft, service: str, ring: int) -> Wanted | None:
        role = f"rings-{service}"
        if role not in draft.roles:
            return None
        target = draft.targets(role).targets.get(wanted_target(service, ring))
        return self._record(service, ring, target) if target else None

    def _record(self, service: str, ring: int, target: TargetFile) -> Wanted:
        key = wanted_object(service, ring, target.hashes["sha256"])
        data = self._store.get(key)
        if digest(data) != "sha256:" + target.hashes["sha256"]:
            raise ForeignMetadata(f"{key} is not what was signed: restore the store or point ring {ring} again")
        return parse_wanted(data, key)

    def _all_wanted(self, draft: Draft, service: str) -> list[Wanted]:
        role = f"rings-{service}"
        targets = draft.targets(role).targets.values() if role in draft.roles else ()
        rings = {t.path.removesuffix(".json").rpartition("-")[2]: t for t in targets}
        return [self._record(service, int(ring), target) for ring, target in rings.items()]

    # --- upkeep

    def refresh(self) -> list[str]:
        """Sign anew what is past half of its lifetime, and say what that was: see :func:`upkeep.refresh`."""
        return refresh(self._repository)

    def rotate(self, role: str) -> None:
        """Replace the key of ``role``: see :func:`upkeep.rotate`."""
        rotate(self._repository, role)


def _named(rings: Iterable[Pointing | Wanted]) -> set[str]:
    """All releases that they let run."""
    return {name for to in rings for name in (to.release, to.next.release if to.next else to.release)}


def _allows(draft: Draft, service: str, release: str) -> bool:
    role = f"releases-{service}"
    return role in draft.roles and release_key(service, release) in draft.targets(role).targets


def _prune(targets: Targets, keep: set[str]) -> None:
    """Forget the oldest approvals above :data:`APPROVED`; ``keep`` are releases that rings run."""
    kept = {hexdigest(name) for name in keep}
    by_age = sorted(targets.targets.values(), key=lambda t: json.dumps(t.custom))
    for target in by_age[: max(0, len(by_age) - APPROVED)]:
        if target.hashes["sha256"] not in kept:
            del targets.targets[target.path]
