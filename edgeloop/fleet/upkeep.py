"""Signatures run out and keys are replaced; both without a moment in which a node could not verify what it sees."""

from __future__ import annotations

import logging

from edgeloop.clients.objects import ObjectStore
from edgeloop.fleet.delegations import PATHS, redelegate
from edgeloop.fleet.draft import Draft
from edgeloop.fleet.metadata import is_due
from edgeloop.fleet.repository import Repository
from edgeloop.samples.releases import metadata_key

_log = logging.getLogger(__name__)


def refresh(repository: Repository, *, every: bool = False) -> list[str]:
    """Sign anew what is past half of its lifetime, and say what that was. Far from it, nothing is written.

    A role whose key is not here is left, with a warning: a person has to bring the key.

    Args:
        every: look at every role now, as when a key was brought; else only when the timestamp is due, twice a week.

    Raises:
        KeyUnavailable: the online keys are not here.
        StoreUnavailable: call again.
    """
    at = repository.clock()
    root = repository.root()
    stamp = repository.timestamp(root) if root else None
    late = stamp is None or is_due("timestamp", stamp.expires, at)
    if root is None or not (late or every):
        return []
    done: list[str] = []

    def change(draft: Draft) -> bool:
        due = [role for role in draft.roles if is_due(role, draft.targets(role).expires, at)]
        signed = [role for role in due if _can_sign(repository, role)]
        for role in signed:
            draft.edit(role)
        done[:] = ["snapshot", "timestamp", *signed] if signed or late else []
        return bool(done)

    repository.commit(change)
    if is_due("root", root.expires, at) and _can_sign(repository, "root"):
        root.version += 1
        repository.write_root(root)
        done.append("root")
    return done


def _can_sign(repository: Repository, role: str) -> bool:
    if repository.keys.has(role):
        return True
    _log.warning("%s runs out and its key is not in %s: bring it and refresh", role, repository.keys.folder)
    return False


def rotate(repository: Repository, role: str) -> None:
    """Replace the key of ``role``. Cut off at any point, the same call again goes on with it.

    Both keys sign until the new one is the one that is named.

    Raises:
        UnknownRole, KeyUnavailable: a key that has to sign is not here; the old key stays in force.
    """
    keys = repository.keys
    keys.begin_rotation(role)
    if role in PATHS:

        def change(draft: Draft) -> bool:
            redelegate(draft, role, keys)
            return True

        repository.commit(change)
    else:
        if role == "snapshot":
            repository.commit(lambda draft: _mend(repository.store, draft))
        _rotate_top(repository, role)
    keys.end_rotation(role)
    repository.commit(lambda _: True)  # without the old signature, and for nodes to look at the root now


def _rotate_top(repository: Repository, role: str) -> None:
    repository.commit(lambda draft: role != "targets" or draft.edit("targets") is not None)
    root, key = repository.root(), repository.keys.public(role)
    if root is None or root.roles[role].keyids == [key.keyid]:
        return
    for old in list(root.roles[role].keyids):
        root.revoke_key(old, role)
    root.add_key(key, role)
    root.version += 1
    repository.write_root(root)


def _mend(store: ObjectStore, draft: Draft) -> bool:
    """Name the newest version that there is of every role, where a thief of the key named one that there is not."""
    lost = [role for role, n in draft.roles.items() if store.size(metadata_key(f"{n}.{role}.json")) is None]
    names = [info.key.rpartition("/")[2] for info in store.list("channel")] if lost else []
    for role in lost:
        versions = [name.partition(".")[0] for name in names if name.partition(".")[2] == f"{role}.json"]
        draft.roles[role] = max(int(version) for version in versions if version.isdecimal())
        _log.error("the snapshot named a version of %s that is missing: taken is %d", role, draft.roles[role])
    return bool(lost)
