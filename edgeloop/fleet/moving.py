"""The record of a fleet's moved nodes as it is signed: read and verified, and written into a draft."""

from __future__ import annotations

from collections.abc import Mapping

from tuf.api.metadata import TargetFile

from edgeloop.clients.objects import ObjectStore
from edgeloop.fleet.delegations import allow_moves
from edgeloop.fleet.draft import Draft
from edgeloop.fleet.metadata import ForeignMetadata
from edgeloop.fleet.signing import Keys
from edgeloop.samples.moves import Moves, moved_fleet, moves_object, moves_target, parse_moves
from edgeloop.samples.records import canonical, digest, hexdigest


def moves(draft: Draft, store: ObjectStore, fleet: str) -> dict[str, int]:
    """Ring by name of each node that moved."""
    target = draft.targets("rings").targets.get(moves_target(fleet)) if "rings" in draft.roles else None
    if target is None:
        return {}
    key = moves_object(fleet, target.hashes["sha256"])
    data = store.get(key)
    if digest(data) != "sha256:" + target.hashes["sha256"]:
        raise ForeignMetadata(f"{key} is not what was signed: restore the store")
    return parse_moves(data, key).rings


def all_moves(draft: Draft, store: ObjectStore) -> dict[str, dict[str, int]]:
    """:func:`moves` of every fleet that has some."""
    paths = draft.targets("rings").targets if "rings" in draft.roles else {}
    found = {fleet: moves(draft, store, fleet) for path in sorted(paths) if (fleet := moved_fleet(path)) is not None}
    return {fleet: rings for fleet, rings in found.items() if rings}


def move(draft: Draft, store: ObjectStore, keys: Keys, fleet: str, changes: Mapping[str, int | None]) -> bool:
    """Let ``rings`` say so; None takes a node back to the ring of its node.yaml. False when nothing is to be written.

    Raises:
        KeyUnavailable: see :func:`allow_moves`.
    """
    made_fit = allow_moves(draft, keys)
    before = moves(draft, store, fleet)
    after = {node: ring for node, ring in {**before, **changes}.items() if ring is not None}
    if after == before:
        return made_fit
    data = canonical(Moves(fleet=fleet, rings=after).model_dump(mode="json"))
    path = moves_target(fleet)
    draft.edit("rings").targets[path] = TargetFile(len(data), {"sha256": hexdigest(digest(data))}, path)
    draft.contents[moves_object(fleet, digest(data))] = data
    return True
