"""What may run at all: changes to the role ``releases-<service>``, made alike online and where its key is kept."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from securesystemslib.exceptions import FormatError
from securesystemslib.formats import encode_canonical
from tuf.api.metadata import TargetFile, Targets

from edgeloop.clients.objects import ObjectMissing, ObjectStore
from edgeloop.errors import BadInput
from edgeloop.fleet.delegations import service_role
from edgeloop.fleet.draft import Draft
from edgeloop.fleet.metadata import is_due
from edgeloop.fleet.pointings import all_wanted, named
from edgeloop.fleet.signing import Keys
from edgeloop.samples.records import hexdigest
from edgeloop.samples.releases import MalformedRelease, parse_release, release_key

#: Releases of a service that stay approved: the newest, and those that a ring is to run. Nodes read all of them
#: with every new one, so they are few.
APPROVED = 16
#: What may be said beside one approval: nodes read it too.
CUSTOM_BYTES = 512
Act = Literal["approve", "withdraw", "renew"]


class UnusableCustom(BadInput):
    """What shall be said beside an approval cannot be signed, or is too long for nodes."""


@dataclass(frozen=True)
class Change:
    """One thing that the approver is to sign."""

    service: str
    act: Act
    release: str | None = None
    """None to sign anew only."""
    custom: Mapping[str, Any] = field(default_factory=dict)
    """Said beside an approval: who approved, the digest of the report of the twin."""

    @property
    def role(self) -> str:
        """The role that it changes."""
        return f"releases-{self.service}"

    def text(self) -> str:
        """For people."""
        return f"{self.act} {self.release} of {self.service}" if self.release else f"{self.act} {self.role}"


def check_custom(custom: Mapping[str, Any]) -> None:
    """Refuse what cannot be signed; raises UnusableCustom."""
    try:
        size = len(encode_canonical(dict(custom)) or "")
    except FormatError as error:
        raise UnusableCustom(f"custom of an approval cannot be signed ({error!s:.100}): no fractions in it") from error
    if size > CUSTOM_BYTES or "at" in custom:
        raise UnusableCustom(f"custom of an approval has {size} bytes of {CUSTOM_BYTES} and no key 'at': shorten it")


def manifest(store: ObjectStore, service: str, release: str) -> bytes:
    """The manifest that shall be approved; raises MalformedRelease when it is not there, or another's."""
    key = release_key(service, release)
    try:
        data = store.get(key)
    except ObjectMissing as error:
        raise MalformedRelease(f"there is no {key} to approve: release the version again") from error
    if parse_release(data, release).service != service:
        raise MalformedRelease(f"{key} is of another service: release the version again")
    return data


def allows(draft: Draft, service: str, release: str) -> bool:
    """Whether ``release`` may run."""
    role = f"releases-{service}"
    return role in draft.roles and release_key(service, release) in draft.targets(role).targets


def is_done(draft: Draft, change: Change, at: datetime) -> bool:
    """Whether nothing is left to sign for ``change``."""
    if change.release is None:
        roles = [role for role in ("releases", change.role) if role in draft.roles]
        return not any(is_due(role, draft.targets(role).expires, at) for role in roles)
    return allows(draft, change.service, change.release) == (change.act == "approve")


def apply(draft: Draft, change: Change, store: ObjectStore, keys: Keys, at: datetime) -> bool:
    """Make ``change`` in the draft; False when it is made already."""
    if is_done(draft, change, at):
        return False
    if change.release is None:
        draft.edit(change.role)
    elif change.act == "withdraw":
        del draft.edit(change.role).targets[release_key(change.service, change.release)]
    else:
        data = manifest(store, change.service, change.release)
        path = release_key(change.service, change.release)
        said = {"custom": {"at": at.isoformat(), **change.custom}}
        targets = service_role(draft, "releases", change.service, keys)
        targets.targets[path] = TargetFile(len(data), {"sha256": hexdigest(change.release)}, path, said)
        _prune(targets, named(all_wanted(draft, store, change.service)))
    return True


def _prune(targets: Targets, keep: Iterable[str]) -> None:
    """Forget the oldest approvals above :data:`APPROVED`; ``keep`` are releases that rings run."""
    kept = {hexdigest(name) for name in keep}
    by_age = sorted(targets.targets.values(), key=lambda t: str((t.custom or {}).get("at", "")))
    for target in by_age[: max(0, len(by_age) - APPROVED)]:
        if target.hashes["sha256"] not in kept:
            del targets.targets[target.path]
