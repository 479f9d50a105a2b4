"""Signed metadata as bytes: read, checked against whoever delegates to it, and told apart by how long it holds."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TypeVar

from tuf.api.exceptions import RepositoryError, UnsignedMetadataError
from tuf.api.metadata import Metadata, Root, Snapshot, Targets, Timestamp

from edgeloop.errors import BadInput, EdgeloopError, Unavailable
from edgeloop.fleet.signing import role_key

#: How long a signature of each role holds. What is past half of it is signed anew by ``refresh``.
LIFETIMES = {
    "root": timedelta(days=365),
    "targets": timedelta(days=365),
    "releases": timedelta(days=90),
    "rings": timedelta(days=90),
    "snapshot": timedelta(days=90),
    "timestamp": timedelta(days=7),
}
T = TypeVar("T", Root, Timestamp, Snapshot, Targets)


class ForeignMetadata(EdgeloopError):
    """Metadata in the store is not what the keys of this channel signed."""


class ForeignKey(EdgeloopError):
    """A key here is not the one that the channel names for its role."""


class ChannelBusy(Unavailable):
    """Others wrote to the channel all the time."""


class StaleRequest(BadInput):
    """The channel went on since a signature was asked for."""


def parse(kind: type[T], data: bytes, key: str) -> Metadata[T]:
    """Read metadata of this kind; raises ForeignMetadata. Says nothing of its signatures."""
    try:
        found: Metadata[T] = Metadata.from_bytes(data)
    except RepositoryError as error:
        raise ForeignMetadata(f"{key} is no metadata ({error!s:.100}): delete it or restore the store") from error
    if not isinstance(found.signed, kind):
        raise ForeignMetadata(f"{key} is {found.signed.type}, not {kind.type}: delete it or restore the store")
    return found


def verify(delegator: Root | Targets, role: str, found: Metadata[T], key: str) -> T:
    """What ``found`` says, if ``delegator`` lets its signers speak for ``role``; raises ForeignMetadata."""
    try:
        delegator.verify_delegate(role, found.signed_bytes, found.signatures)
    except (UnsignedMetadataError, ValueError) as error:
        raise ForeignMetadata(f"{key} is not signed for {role} ({error!s:.100}): restore the store") from error
    return found.signed


def is_due(role: str, expires: datetime, at: datetime) -> bool:
    """Whether half of the lifetime of ``role`` is over."""
    return expires - at < LIFETIMES[role_key(role)] / 2
