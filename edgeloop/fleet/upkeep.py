"""Signatures run out and keys are replaced; both without a moment in which a node could not verify what it sees."""

from __future__ import annotations

import logging

from edgeloop.fleet.delegations import PATHS, redelegate
from edgeloop.fleet.repository import Draft, Repository, is_due

_log = logging.getLogger(__name__)


def refresh(repository: Repository) -> list[str]:
    """Sign anew what is past half of its lifetime, and say what that was. Far from it, nothing is written.

    A role whose key is not here is left, with a warning: a person has to bring the key.

    Raises:
        KeyUnavailable: the online keys are not here.
        StoreUnavailable: call again.
    """
    at = repository.clock()
    root = repository.root()
    stamp = repository.timestamp(root) if root else None
    if root is None or (stamp and not is_due("timestamp", stamp.expires, at)):
        return []
    done: list[str] = []

    def change(draft: Draft) -> bool:
        due = [role for role in draft.roles if is_due(role, draft.targets(role).expires, at)]
        signed = [role for role in due if _can_sign(repository, role)]
        for role in signed:
            draft.edit(role)
        done[:] = ["snapshot", "timestamp", *signed]
        return True

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
