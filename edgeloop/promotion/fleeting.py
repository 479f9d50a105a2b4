"""The signer and the rollouts of a promotion over :mod:`edgeloop.fleet`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from edgeloop.promotion.records import Rollout
from edgeloop.samples.service import Service
from edgeloop.store import FleetStore

if TYPE_CHECKING:
    from edgeloop.fleet.channel import Rings
    from edgeloop.fleet.publisher import Publisher
    from edgeloop.fleet.rollouts.state_store import StateStore


class ChannelSigner:
    """Signs in the channel of one store."""

    def __init__(self, channel: Publisher) -> None:
        self._channel = channel

    def approve(self, service: str, release: str, custom: Mapping[str, Any]) -> str | None:
        """See :meth:`~edgeloop.promotion.parts.Signer.approve`."""
        from edgeloop.fleet.channel import AwaitingSignature

        try:
            self._channel.approve(service, release, custom)
        except AwaitingSignature as error:
            return str(error)
        return None

    def forget(self, service: str, release: str) -> None:
        """See :meth:`~edgeloop.promotion.parts.Signer.forget`."""
        self._channel.forget(service, release)


class RingRollouts:
    """Begins rollouts over rings and takes them back; the next tick tells the rings."""

    def __init__(
        self, fleet: FleetStore, channel: Rings, check: Callable[[Service, str], None] = lambda _service, _release: None
    ) -> None:
        """``check`` raises BadInput where a release cannot be brought to a service's rings."""
        self._fleet = fleet
        self._channel = channel
        self._check = check

    @cached_property
    def _states(self) -> StateStore:
        from edgeloop.fleet.rollouts.state_store import StateStore

        return StateStore(self._fleet.database)

    def newest(self, service: str) -> Rollout | None:
        """See :meth:`~edgeloop.promotion.parts.Rollouts.newest`."""
        active, queued = self._states.opened(service)
        found = queued or active or next(iter(self._states.standing(service)), None)
        if found is None:  # none, or from before states were kept
            row = self._fleet.last_rollout(service)
            return None if row is None else rollout_of_row(self._fleet, row)
        view = found.view
        row = {"id": view.rollout, "service": service, "digest": view.release, "former": view.former}
        return rollout_of_row(self._fleet, {**row, "state": view.state, "reason": view.reason})

    def start(self, service: Service, release: str, who: str, reason: str, again: bool) -> bool:
        """See :meth:`~edgeloop.promotion.parts.Rollouts.start`."""
        from edgeloop.fleet.rollouts.commands import start

        self._check(service, release)
        return start(self._fleet, self._channel, service, release, reason, who, again=again)

    def stop(self, service: Service, who: str, reason: str) -> bool:
        """See :meth:`~edgeloop.promotion.parts.Rollouts.stop`."""
        from edgeloop.fleet.rollouts.commands import stop

        return stop(self._fleet, service.name, who, reason)


def rollout_of_row(fleet: FleetStore, row: Mapping[str, Any]) -> Rollout:
    """A rollout out of the row that every room reads."""
    former = row["former"]
    return Rollout(
        number=int(row["id"]),
        release=str(row["digest"]),
        former=former,
        former_version=fleet.version_of(str(row["service"]), former) if former else None,
        state=str(row["state"]),
        reason=str(row["reason"]),
        version=fleet.version_of(str(row["service"]), str(row["digest"])),
    )
