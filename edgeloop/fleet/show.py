"""The channel for people: who signs what until when, which keys are here, what may run and where, and who moved."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from tuf.api.metadata import DelegatedRole, Role, Root, Targets

from edgeloop.errors import BadInput
from edgeloop.fleet.draft import Draft
from edgeloop.fleet.metadata import is_due
from edgeloop.fleet.moving import all_moves
from edgeloop.fleet.pending import Pending, waiting
from edgeloop.fleet.pointings import all_wanted
from edgeloop.fleet.repository import Repository
from edgeloop.fleet.signing import KeyUnavailable, UnusableKey
from edgeloop.samples.releases import Wanted


class ExpiredSignature(BadInput):
    """A role that nodes ask has run out, and nobody here can sign it anew."""


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
    moves: dict[str, dict[str, int]]
    """Ring by name of each node that is in another one than its node.yaml says, by fleet."""
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
        all_moves(draft, repository.store),
        tuple(waiting(repository.store)),
    )


def remedy(role: RoleView) -> str:
    """What to do about a role that runs out."""
    refresh = "run  edgeloop channel refresh"
    if role.here:
        return refresh
    name, _, service = role.role.partition("-")
    bring = f"bring {name}.pem and {refresh}"
    if name != "releases":
        return bring
    return f"{bring}, or sign it where the key is:  edgeloop release sign {service or 'SERVICE'} renew"


def describe_roles(repository: Repository) -> tuple[RoleView, ...]:
    """The signed roles alone; none before there is a channel. Raises as :func:`describe`."""
    draft = repository.read(finish=False)
    return () if draft is None or draft.version == 0 else tuple(_roles(repository, draft))


def refuse_expired(roles: Iterable[RoleView], service: str) -> None:
    """Raise ExpiredSignature if nodes of ``service`` would believe nothing that is said now."""
    for role in roles:
        asked = "-" not in role.role or role.role.partition("-")[2] == service
        if asked and role.life == "expired" and not role.here:
            raise ExpiredSignature(
                f"the signature of {role.role} ran out {role.expires:%Y-%m-%d %H:%M} UTC, so nodes follow nothing new,"
                f" and its key is not here: {remedy(role)}"
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
