"""Approvals signed where the store and the other keys are not: on a computer without a network, or in a CI job.

The online machine writes a request: the signed state that it sees, whole, and the one change that it asks for. The
signer verifies that state from its own root, makes the change itself and signs the roles that it touched: it signs
nothing that it did not write. What comes back is adopted only on top of the very state that it was made for.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from tuf.api.metadata import Targets

from edgeloop.clients.objects import MemoryStore
from edgeloop.errors import BadInput
from edgeloop.fleet.approvals import Act, Change, apply, check_custom, manifest
from edgeloop.fleet.draft import Draft
from edgeloop.fleet.metadata import ForeignMetadata, StaleRequest, is_due, parse, verify
from edgeloop.fleet.repository import Repository
from edgeloop.fleet.signing import Keys
from edgeloop.samples.records import canonical
from edgeloop.samples.releases import Digest, metadata_key, release_key, wanted_object

_log = logging.getLogger(__name__)
#: The largest request or reply that is read; a request is some tens of kilobytes.
LARGEST = 2_000_000
#: Versions may have holes, where a writer was cut off; a request that leaves more is no honest one.
_HOLE = 100
_MEMORY = "signed.json"


class MalformedRequest(BadInput):
    """A file is no request for a signature, or no answer to one."""


class ForeignReply(BadInput):
    """What came back was not signed by this channel's key ``releases``, or is of another service."""


class NoTrustedRoot(BadInput):
    """The signer has no root from which to verify what it is asked to sign."""


class _Sent(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    version: Literal[1] = 1
    service: str = Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")
    act: Act
    release: Digest | None = None
    custom: dict[str, Any] = Field(default_factory=dict)
    base: dict[str, int]
    """Version of ``releases`` and ``releases-<service>`` that it builds on; 0 where there is none."""

    @property
    def change(self) -> Change:
        """What is asked for."""
        return Change(self.service, self.act, self.release, self.custom)

    def to_bytes(self) -> bytes:
        """As it travels."""
        return canonical(self.model_dump(mode="json"))


class Request(_Sent):
    """What the online machine asks to be signed."""

    free: dict[str, int]
    """The first version of each of the two roles that was never written."""
    files: dict[str, str]
    """The signed state and the manifest, by object key."""


class Reply(_Sent):
    """What the signer answers."""

    roles: dict[str, str]
    """Signed metadata by role."""


S = TypeVar("S", Request, Reply)


def read(kind: type[S], data: bytes, where: str) -> S:
    """Parse a request or reply; raises MalformedRequest."""
    name = kind.__name__.lower()
    if len(data) > LARGEST:
        raise MalformedRequest(f"{where} has more than {LARGEST} bytes, so it is no {name}: ask for it again")
    try:
        return kind.model_validate(json.loads(data))
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"])) or name
        raise MalformedRequest(f"{where} is no {name} (field {field}: {first['msg']:.80}): ask for it again") from error
    except (ValueError, RecursionError) as error:
        raise MalformedRequest(f"{where} is no {name} ({error!s:.120}): ask for it again") from error


# --- online


def request(repository: Repository, draft: Draft, change: Change) -> Request:
    """Ask for ``change``; raises MalformedRelease when its manifest is not there."""
    base = {role: draft.roles.get(role, 0) for role in ("releases", change.role)}
    return Request(
        service=change.service,
        act=change.act,
        release=change.release,
        custom=dict(change.custom),
        base=base,
        free={role: _free(repository, role, version + 1) for role, version in base.items()},
        files={key: data.decode() for key, data in _files(repository, draft, change).items()},
    )


def _free(repository: Repository, role: str, version: int) -> int:
    while repository.store.size(metadata_key(f"{version}.{role}.json")) is not None:
        version += 1
    return version


def _files(repository: Repository, draft: Draft, change: Change) -> dict[str, bytes]:
    rings = f"rings-{change.service}"
    roles = [r for r in ("targets", "releases", "rings", change.role, rings) if r in draft.roles]
    names = [f"{draft.roles[role]}.{role}.json" for role in roles]
    names += [f"{n}.root.json" for n in range(1, draft.root.version + 1)]
    names += [f"{draft.version}.snapshot.json", "timestamp.json"]
    found = {metadata_key(name): repository.store.get(metadata_key(name)) for name in names}
    if rings in draft.roles:
        for target in draft.targets(rings).targets.values():
            ring = int(target.path.removesuffix(".json").rpartition("-")[2])
            key = wanted_object(change.service, ring, target.hashes["sha256"])
            found[key] = repository.store.get(key)
    if change.act == "approve" and change.release:
        found[release_key(change.service, change.release)] = manifest(repository.store, change.service, change.release)
    return found


def adopt(repository: Repository, reply: Reply) -> bool:
    """Publish what was signed; False when it is published already.

    Raises:
        StaleRequest: the channel has gone on, or the signature has run out; ask again.
        ForeignReply: it is not signed by the key that the channel names, or speaks of another service.
    """

    def change(draft: Draft) -> bool:
        found = _verified(draft, reply, repository.clock())
        if all(_is_there(repository, draft, role, *signed) for role, signed in found.items()):
            return False
        _check_newer(draft, reply, {role: version for role, (version, _) in found.items()})
        draft.signed.update(found)
        return True

    return repository.commit(change)


def _verified(draft: Draft, reply: Reply, at: datetime) -> dict[str, tuple[int, bytes]]:
    """Version and bytes of each role of the reply, the delegating one first."""
    own = f"releases-{reply.service}"
    if own not in reply.roles or not set(reply.roles) <= {"releases", own}:
        raise ForeignReply(f"the reply for {reply.service} speaks of {', '.join(reply.roles)}: sign the request again")
    delegator: Targets = draft.targets("targets")
    found: dict[str, tuple[int, bytes]] = {}
    for role in ("releases", own):
        if role not in reply.roles:
            delegator = draft.targets(role)
            continue
        data = reply.roles[role].encode()
        try:
            content = verify(delegator, role, parse(Targets, data, f"the reply's {role}"), f"the reply's {role}")
        except ForeignMetadata as error:
            raise ForeignReply(f"{error!s:.160}: sign the request with the channel's key releases") from error
        if role == own and any(not path.startswith(f"releases/{reply.service}/") for path in content.targets):
            raise ForeignReply(f"the reply for {reply.service} was signed for another service: sign its own request")
        if content.expires <= at:
            raise StaleRequest(
                f"the reply's {role} ran out {content.expires}: look at the signer's clock and sign again"
            )
        found[role] = content.version, data
        delegator = content
    return found


def _is_there(repository: Repository, draft: Draft, role: str, version: int, data: bytes) -> bool:
    same = draft.roles.get(role) == version
    return same and repository.store.get(metadata_key(f"{version}.{role}.json")) == data


def _check_newer(draft: Draft, reply: Reply, versions: Mapping[str, int]) -> None:
    for role, version in versions.items():
        present = draft.roles.get(role, 0)
        if reply.base.get(role, 0) != present or version <= present:
            raise StaleRequest(
                f"{reply.change.text()} was signed on version {reply.base.get(role, 0)} of {role}, which is at"
                f" {present} now: sign the new request"
            )


# --- where the key is


def sign(asked: Request, keys: Keys, repository: Repository | None = None) -> Reply:
    """Make the change that is asked for, and sign the roles that it touches.

    Only ``releases.pem`` and a ``root.json`` have to be in the folder of ``keys``. What was withdrawn here comes
    back by an approval of its own only, and no state is signed that is older than one seen here before; both are
    kept in ``signed.json`` beside the key, so a folder that is made anew for every signature forgets them.

    Raises:
        NoTrustedRoot, KeyUnavailable, ForeignKey: the folder lacks something, or has another channel's key.
        ForeignMetadata, MalformedRelease, MalformedRequest: the request is not what it says.
        StaleRequest: it is of an older state, or nothing is left to do.
    """
    repository = repository or Repository(_bundle(asked), keys)
    if keys.root() is None:
        raise NoTrustedRoot(
            f"no {keys.folder / 'root.json'} to verify the request with: copy it there from the channel"
        )
    keys.signers("releases")
    draft = repository.read(finish=False)
    if draft is None or draft.version == 0:
        raise MalformedRequest("the request holds no signed state of the channel: ask for it again")
    memory = _Memory.of(keys)
    if draft.version < memory.snapshot:
        raise StaleRequest(
            f"the request is of state {draft.version}, and {memory.snapshot} was seen here: ask again, with"
            "  edgeloop channel request  or, to renew,  edgeloop channel refresh"
        )
    roles = _changed(repository, draft, asked, memory)
    versions = {role: _next_version(draft, asked, memory, role) for role in roles}
    signed = {role: _sign(repository, draft, role, versions[role]) for role in roles}
    memory.after(asked, draft.version, versions).keep(keys)
    return Reply(**asked.model_dump(exclude={"files", "free"}), roles=signed)


def _bundle(asked: Request) -> MemoryStore:
    store = MemoryStore()
    for key, text in asked.files.items():
        store.put(key, text.encode())
    return store


def _changed(repository: Repository, draft: Draft, asked: Request, memory: _Memory) -> list[str]:
    """The roles to sign, the delegating one first."""
    change, at = asked.change, repository.clock()
    check_custom(change.custom)
    if not apply(draft, change, repository.store, repository.keys, at):
        raise StaleRequest(f"nothing is left to sign to {change.text()}: it is done already")
    content = draft.edit(change.role)
    for name in memory.withdrawn.get(change.service, []):
        if not (change.act == "approve" and name == change.release):
            content.targets.pop(release_key(change.service, name), None)
    if "releases" in draft.roles and is_due("releases", draft.targets("releases").expires, at):
        draft.edit("releases")
    return sorted(draft.edited)


def _next_version(draft: Draft, asked: Request, memory: _Memory, role: str) -> int:
    """Never one that was given away before: two contents of one version could be shown one for the other."""
    present = draft.roles.get(role, 0)
    free = asked.free.get(role, 0)
    if free > present + _HOLE:
        raise MalformedRequest(f"the request asks for version {free} of {role} after {present}: ask for it again")
    return max(present + 1, free, memory.versions.get(role, 0) + 1)


def _sign(repository: Repository, draft: Draft, role: str, version: int) -> str:
    content = draft.edited[role]
    content.version, content.expires = version, repository.expiry(role)
    return repository.signed(content, role, draft.delegator(role)).decode()


class _Memory(BaseModel):
    """What this signer has seen and signed."""

    snapshot: int = 0
    versions: dict[str, int] = Field(default_factory=dict)
    withdrawn: dict[str, list[str]] = Field(default_factory=dict)

    @classmethod
    def of(cls, keys: Keys) -> _Memory:
        data = keys.kept(_MEMORY)
        try:
            return cls.model_validate_json(data) if data else cls()
        except ValidationError as error:
            raise BadInput(f"{keys.folder / _MEMORY} cannot be read ({error!s:.80}): restore or delete it") from error

    def after(self, asked: Request, snapshot: int, versions: Mapping[str, int]) -> _Memory:
        gone = set(self.withdrawn.get(asked.service, []))
        if asked.release:
            gone = gone | {asked.release} if asked.act == "withdraw" else gone - {asked.release}
        withdrawn = {**self.withdrawn, asked.service: sorted(gone)}
        return _Memory(snapshot=snapshot, versions={**self.versions, **versions}, withdrawn=withdrawn)

    def keep(self, keys: Keys) -> None:
        if not keys.keep(_MEMORY, self.model_dump_json().encode()):
            _log.warning("%s cannot be written: an older state may be signed next time", keys.folder / _MEMORY)
