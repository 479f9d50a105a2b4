"""Records of rings as they are signed: read and verified, and written into a draft."""

from __future__ import annotations

from collections.abc import Iterable

from tuf.api.metadata import TargetFile

from edgeloop.clients.objects import ObjectStore
from edgeloop.fleet.channel import Pointing
from edgeloop.fleet.delegations import service_role
from edgeloop.fleet.draft import Draft
from edgeloop.fleet.metadata import ForeignMetadata
from edgeloop.fleet.signing import Keys
from edgeloop.samples.records import digest, hexdigest
from edgeloop.samples.releases import Wanted, parse_wanted, wanted_object, wanted_target


def wanted(draft: Draft, store: ObjectStore, service: str, ring: int) -> Wanted | None:
    """The record of ``ring``; None before the first time."""
    role = f"rings-{service}"
    if role not in draft.roles:
        return None
    target = draft.targets(role).targets.get(wanted_target(service, ring))
    return _record(store, service, ring, target) if target else None


def all_wanted(draft: Draft, store: ObjectStore, service: str) -> list[Wanted]:
    """The records of all rings of ``service``."""
    role = f"rings-{service}"
    targets = draft.targets(role).targets.values() if role in draft.roles else ()
    rings = {t.path.removesuffix(".json").rpartition("-")[2]: t for t in targets}
    return [_record(store, service, int(ring), target) for ring, target in rings.items()]


def _record(store: ObjectStore, service: str, ring: int, target: TargetFile) -> Wanted:
    key = wanted_object(service, ring, target.hashes["sha256"])
    data = store.get(key)
    if digest(data) != "sha256:" + target.hashes["sha256"]:
        raise ForeignMetadata(f"{key} is not what was signed: restore the store or point ring {ring} again")
    return parse_wanted(data, key)


def point(draft: Draft, keys: Keys, record: Wanted) -> None:
    """Let the role of its service name ``record``."""
    data = record.to_bytes()
    path = wanted_target(record.service, record.ring)
    target = TargetFile(len(data), {"sha256": hexdigest(digest(data))}, path)
    service_role(draft, "rings", record.service, keys).targets[path] = target
    draft.contents[wanted_object(record.service, record.ring, digest(data))] = data


def named(rings: Iterable[Pointing | Wanted]) -> set[str]:
    """All releases that they let run."""
    return {name for to in rings for name in (to.release, to.next.release if to.next else to.release)}
