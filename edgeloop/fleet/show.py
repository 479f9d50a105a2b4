"""The channel for people: who signs what until when, whether the key is here, what may run and where it is to run."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from tuf.api.metadata import DelegatedRole, Role, Root, Targets

from edgeloop.fleet.draft import Draft
from edgeloop.fleet.metadata import is_due
from edgeloop.fleet.pending import Pending, waiting
from edgeloop.fleet.pointings import all_wanted
from edgeloop.fleet.repository import Repository
from edgeloop.fleet.signing import KeyUnavailable, UnusableKey
from edgeloop.samples.releases import Wanted

Life = Literal["good", "due", "expired"]


@dataclass(frozen=True)
class RoleView:
    """One role as it is signed now."""

    role: str
    version: int
    expires: datetime
    life: Life
    """``due``: past half of it, so the next refresh signs it anew where its key is."""
    threshold: int
    keys: tuple[str, ...]
    """Ids of the keys that may sign it."""
    here: bool
    """Whether enough of them are in the folder of keys."""


@dataclass(frozen=True)
class ApprovalView:
    """A release that may run."""

    release: str
    custom: dict[str, Any]
    """``at``, and what was said beside the approval."""
    rings: tuple[int, ...]
    """Rings that are to run it."""
    next: tuple[int, ...]
    """Rings that it is on its way into."""


@dataclass(frozen=True)
class ChannelView:
    """The whole channel."""

    snapshot: int
    roles: tuple[RoleView, ...]
    services: dict[str, tuple[ApprovalView, ...]]
    """Approved releases by service, the newest first."""
    pending: tuple[Pending, ...]


def describe(repository: Repository) -> ChannelView | None:
    """What is signed, verified; None before there is a channel. Writes nothing.

    Raises:
        ForeignMetadata: something is not what its keys signed.
    """
    draft = repository.read(finish=False)
    if draft is None or draft.version == 0:
        return None
    services = sorted({name.partition("-")[2] for name in draft.roles if "-" in name})
    return ChannelView(
        draft.version,
        tuple(_roles(repository, draft)),
        {service: _approvals(repository, draft, service) for service in services},
        tuple(waiting(repository.store)),
    )


def _roles(repository: Repository, draft: Draft) -> list[RoleView]:
    root = draft.root
    snapshot, stamp = repository.snapshot(root, draft.version), repository.timestamp(root)
    found = [_role(repository, root.roles["root"], "root", root.version, root.expires)]
    for role in sorted(draft.roles, key=lambda name: (name != "targets", name)):
        content = draft.targets(role)
        found.append(_role(repository, _spec(draft.delegator(role), role), role, content.version, content.expires))
    found.append(_role(repository, root.roles["snapshot"], "snapshot", snapshot.version, snapshot.expires))
    if stamp is not None:
        found.append(_role(repository, root.roles["timestamp"], "timestamp", stamp.version, stamp.expires))
    return found


def _spec(delegator: Root | Targets, role: str) -> Role | DelegatedRole:
    if isinstance(delegator, Root):
        return delegator.roles[role]
    assert delegator.delegations is not None and delegator.delegations.roles is not None
    return delegator.delegations.roles[role]


def _role(repository: Repository, spec: Role, role: str, version: int, expires: datetime) -> RoleView:
    at = repository.clock()
    life: Life = "expired" if expires <= at else "due" if is_due(role, expires, at) else "good"
    try:
        own = {signer.public_key.keyid for signer in repository.keys.signers(role)}
    except (KeyUnavailable, UnusableKey):
        own = set()
    here = len(own & set(spec.keyids)) >= spec.threshold
    return RoleView(role, version, expires, life, spec.threshold, tuple(spec.keyids), here)


def _approvals(repository: Repository, draft: Draft, service: str) -> tuple[ApprovalView, ...]:
    role = f"releases-{service}"
    if role not in draft.roles:
        return ()
    records = all_wanted(draft, repository.store, service)
    targets = sorted(draft.targets(role).targets.values(), key=lambda t: str((t.custom or {}).get("at")), reverse=True)
    return tuple(_approval("sha256:" + t.hashes["sha256"], t.custom or {}, records) for t in targets)


def _approval(release: str, custom: dict[str, Any], records: list[Wanted]) -> ApprovalView:
    rings = sorted(r.ring for r in records if r.release == release)
    coming = sorted(r.ring for r in records if r.next and r.next.release == release)
    return ApprovalView(release, custom, tuple(rings), tuple(coming))
