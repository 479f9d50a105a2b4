"""The channel: signed metadata in the object store says which releases may run and which ring runs which of them.

The store is the truth; the retained MQTT message beside it, which is not signed, only makes nodes look sooner. How it
is signed and written is in ``publisher`` and ``repository``, which take the TUF library and are imported when needed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from edgeloop.clients.broker import Broker, BrokerUnavailable
from edgeloop.clients.objects import ObjectStore
from edgeloop.errors import EdgeloopError
from edgeloop.samples.releases import Next, Wanted
from edgeloop.samples.topics import wanted_topic

if TYPE_CHECKING:
    from edgeloop.fleet.publisher import Publisher

_log = logging.getLogger(__name__)


class NotApproved(EdgeloopError):
    """A ring shall run a release that was never approved."""


class AwaitingSignature(EdgeloopError):
    """The key ``releases`` is not here, so its signature was asked for: call again when it has been given."""


@dataclass(frozen=True)
class Pointing:
    """What one ring is to run."""

    release: str
    next: Next | None = None
    """On its way in. A ring's first release has none: there is nothing that a part of it could go on running."""


class Rings(Protocol):
    """What a rollout needs of the channel; :class:`~edgeloop.fleet.publisher.Publisher` is one."""

    def allowed(self, service: str, release: str) -> bool:
        """Whether ``release`` is approved."""

    def wanted(self, service: str, ring: int) -> Wanted | None:
        """The record of ``ring``, None before the first release."""

    def point(self, service: str, ring: int, release: str) -> tuple[Wanted, bool]:
        """Let ``ring`` run ``release``; the record, and whether it is new."""

    def point_many(self, service: str, rings: Mapping[int, Pointing]) -> dict[int, tuple[Wanted, bool]]:
        """Let each ring run what its pointing says, in one commit; the records, and whether each is new."""

    def move(self, fleet: str, asked: Callable[[], Mapping[str, int | None]]) -> bool:
        """Let nodes be in other rings than before, None for that of their node.yaml; whether that is new."""

    def refresh(self) -> list[str]:
        """Sign anew what is about to run out."""


def open_channel(store: ObjectStore, keys: Path) -> Publisher:
    """The channel in ``store``, signed with the keys in the folder ``keys``; nothing is read or made yet."""
    from edgeloop.fleet.publisher import Publisher
    from edgeloop.fleet.signing import Keys

    return Publisher(store, Keys(keys))


def point_ring(channel: Rings, broker: Broker, service: str, ring: int, release: str) -> Wanted:
    """Make ``release`` the one that ``ring`` should run. Idempotent: pointing again changes and nudges nothing.

    Raises:
        NotApproved: nobody said that ``release`` may run.
        StoreUnavailable: the record could not be written; call again.
    """
    record, is_new = channel.point(service, ring, release)
    if is_new:
        try:
            data = record.to_bytes()
            broker.publish(wanted_topic(service, ring), data, retain=True)
        except BrokerUnavailable as error:
            _log.warning("nudge of ring %d lost, nodes will poll: %s", ring, error)
    return record
