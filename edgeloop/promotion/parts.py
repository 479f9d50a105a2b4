"""What a promotion works with, as small protocols, and the one place that makes them out of the rooms below."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from edgeloop.clients.objects import ObjectStore
from edgeloop.clients.registry import ModelRegistry, ModelVersion
from edgeloop.promotion.kept import Promotions
from edgeloop.promotion.records import Outcome, Rollout
from edgeloop.samples.profiles import Profile
from edgeloop.samples.service import Service
from edgeloop.samples.table import Tables
from edgeloop.store import FleetStore


class Builder(Protocol):
    """Packages versions."""

    def build(self, service: Service, version: ModelVersion) -> str:
        """Make sure that ``version`` is a release and return its digest. Idempotent."""


class Rehearser(Protocol):
    """Runs a release on a digital twin."""

    def outcome(self, service: Service, release: str) -> Outcome | None:
        """What is known already; None when it never ran."""

    def rehearse(self, service: Service, release: str) -> Outcome:
        """Run it now, however long that takes."""

    def report(self, service: Service, release: str) -> str | None:
        """Digest of what :meth:`outcome` goes by; None where nothing was found."""


class NoTwin:
    """There is no digital twin: a service that requires one waits for a person's word."""

    def outcome(self, service: Service, release: str) -> Outcome | None:
        """Never sure."""
        return "inconclusive"

    def rehearse(self, service: Service, release: str) -> Outcome:
        """Never sure."""
        return "inconclusive"

    def report(self, service: Service, release: str) -> str | None:
        """None."""
        return None


class Signer(Protocol):
    """Says over the signed channel that a release may run."""

    def approve(self, service: str, release: str, custom: Mapping[str, Any]) -> str | None:
        """Sign it, or ask for its signature; None when it is signed, else what is waited for."""

    def forget(self, service: str, release: str) -> None:
        """Ask no more for its signature; one that is given all the same is not published."""


class Rollouts(Protocol):
    """Begins and stops rollouts."""

    def newest(self, service: str) -> Rollout | None:
        """The queued rollout, else the one under way, else the last that any ring began; None when there is none."""

    def start(self, service: Service, release: str, who: str, reason: str, again: bool) -> bool:
        """Begin to roll ``release`` out, or queue it; False when it is on its way or done.

        Args:
            again: also when its last rollout was taken back or aborted, because somebody means it.
        """

    def stop(self, service: Service, who: str, reason: str) -> bool:
        """Take back what is under way, and what is queued; False when nothing is. Nodes may go back later."""


@dataclass(frozen=True)
class Parts:
    """Collaborators of :mod:`edgeloop.promotion.reconcile` and :mod:`edgeloop.promotion.acts`."""

    registry: ModelRegistry
    fleet: FleetStore
    promotions: Promotions
    builder: Builder
    rehearser: Rehearser
    signer: Signer
    rollouts: Rollouts


class ReleaseBuilder:
    """The builder over :mod:`edgeloop.release.build`; ``profiles`` are those that a service names."""

    def __init__(
        self,
        store: ObjectStore,
        tables: Callable[[str], Tables],
        fleet: FleetStore,
        profiles: Callable[[Service], Sequence[Profile]],
    ) -> None:
        self._store = store
        self._tables = tables
        self._fleet = fleet
        self._profiles = profiles

    def build(self, service: Service, version: ModelVersion) -> str:
        """See :meth:`Builder.build`."""
        from edgeloop.release.build import find_release, make_release

        profiles = self._profiles(service)
        known = find_release(self._store, self._fleet, service, version, profiles)
        if known:
            return known
        tables = self._tables(service.name)
        return make_release(self._store, tables, self._fleet, service, version, profiles).digest
