"""One short step of every rollout: whoever ticks, however often, wherever the last one was cut off, the next goes on.

State first, effects second: a decision is written before anything is told to a ring, and every tick begins by telling
rings what is written. Of two ticks at once the slower one's decision is dropped.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from datetime import datetime

from edgeloop.clients.broker import Broker
from edgeloop.errors import BadInput, EdgeloopError, Unavailable
from edgeloop.fleet.channel import Rings
from edgeloop.fleet.rollouts.decide import decide
from edgeloop.fleet.rollouts.effects import Applied, Effects, NoTarget, Perform, Refs, Targets, in_turn
from edgeloop.fleet.rollouts.facts import Facts
from edgeloop.fleet.rollouts.intake import hear
from edgeloop.fleet.rollouts.known import gather
from edgeloop.fleet.rollouts.lease import lease
from edgeloop.fleet.rollouts.moves import settle
from edgeloop.fleet.rollouts.roster import Roster
from edgeloop.fleet.rollouts.standing import adopt, at_its_turn
from edgeloop.fleet.rollouts.state_store import Saved, StateStore
from edgeloop.fleet.rollouts.states import ACTIVE, View
from edgeloop.fleet.rollouts.status import RolloutStatus, status_of
from edgeloop.fleet.targets.agent import AgentTarget
from edgeloop.fleet.targets.protocol import ReleaseRef, Target
from edgeloop.samples.records import now
from edgeloop.samples.service import Service
from edgeloop.store import FleetStore

_log = logging.getLogger(__name__)
#: Image references by digest of a release, by kind.
ImagesOf = Callable[[str], Mapping[str, str]]


def _no_images(_release: str) -> Mapping[str, str]:
    return {}


def tick(
    fleet: FleetStore,
    channel: Rings,
    broker: Broker,
    services: Callable[[str], Service],
    at: datetime | None = None,
    *,
    targets: Targets | None = None,
    images: ImagesOf = _no_images,
    perform: Perform = in_turn,
) -> list[RolloutStatus]:
    """Advance every open rollout and say where each stands. Keeps the channel's signatures fresh.

    Args:
        services: the services by name, for rollouts of before their state was kept whole.
        at: the time of this tick.
        targets: places other than the channel, by name.
        images: the images that a release was pushed as, by its digest.
        perform: does the calls of those places.

    Raises:
        BrokerUnavailable, StoreUnavailable, DatabaseUnavailable: nothing more was decided; the next tick tries again.
    """
    channel.refresh()
    at = at or now()
    store = StateStore(fleet.database)
    adopt(fleet, store, services, at)
    _move_nodes(fleet, channel)
    standing = store.standing()
    effects = Effects(AgentTarget(channel, broker), targets or _no_target, refs_of(fleet, images), perform)
    if not store.open():
        for saved in standing:
            _apply(effects, saved.view)
        return []
    with lease(fleet.database, "tick", at) as is_mine:
        if not is_mine:
            return [status_of(saved.view) for saved in store.open()]
        return _Tick(fleet, store, effects, broker, at).run(standing)


def _move_nodes(fleet: FleetStore, channel: Rings) -> None:
    try:
        settle(fleet, channel)
    except BadInput as error:  # what was moved must not stop what is rolled out
        _log.error("nodes do not move: %s", error)


class _Tick:
    """What one tick works with."""

    def __init__(self, fleet: FleetStore, store: StateStore, effects: Effects, broker: Broker, at: datetime) -> None:
        self._store = store
        self._effects = effects
        self._broker = broker
        self._roster = Roster(fleet.database)
        self._at = at

    def run(self, standing: list[Saved]) -> list[RolloutStatus]:
        applied = {saved.view.rollout: _apply(self._effects, saved.view) for saved in standing}
        complete = hear(self._roster, self._broker, self._at).complete
        services = list(dict.fromkeys(saved.view.service for saved in self._store.open()))
        return [status_of(view) for service in services for view in self._service(service, applied, complete)]

    def _service(self, service: str, applied: dict[int, Applied], complete: bool) -> list[View]:
        """The rollout on its way, and the queued one when its turn has come."""
        active, queued = self._store.opened(service)
        views: list[View] = []
        if active is not None:
            done = applied.get(active.view.rollout, Applied(False))
            views.append(self._advance(active, done, complete, newer=queued is not None))
        if queued is not None:
            is_free = not views or views[0].state not in ACTIVE
            views.append(self._take_turn(queued) if is_free else queued.view)
        return views

    def _advance(self, saved: Saved, applied: Applied, complete: bool, *, newer: bool) -> View:
        try:
            facts = gather(saved.view, self._roster, self._effects, applied, self._at, complete=complete, newer=newer)
        except Unavailable as error:  # the place of one service is away: the others go on
            _log.warning("rollout of %s waits: %s", saved.view.service, error)
            return saved.view
        except EdgeloopError as error:  # nor will it tell before a person has mended something
            facts = Facts(applied=False, refused=applied.refused or str(error), newer=newer)
        return self._decided(saved, saved.view, facts)

    def _take_turn(self, queued: Saved) -> View:
        return self._decided(queued, at_its_turn(self._store, queued.view), Facts())

    def _decided(self, saved: Saved, view: View, facts: Facts) -> View:
        decision = decide(view, facts, self._at)
        if decision.view == saved.view:
            return saved.view
        if not self._store.save(saved, decision.view, decision.events, self._at):
            return saved.view  # another was faster: what was decided here is of the past
        _apply(self._effects, decision.view)
        return decision.view


def _apply(effects: Effects, view: View) -> Applied:
    """Tell the rings; what fails for one service holds up no other. Without the store of the channel none goes on."""
    try:
        applied = effects.apply(view)
    except EdgeloopError as error:
        if view.strategy.target == "agent" and isinstance(error, Unavailable):
            raise
        applied = Applied(False) if isinstance(error, Unavailable) else Applied(False, str(error))
        _log.warning("rings of %s: %s", view.service, error)
    if applied.refused and view.state in ACTIVE:
        _log.error("rings of %s: %s", view.service, applied.refused)
    return applied


def _no_target(name: str) -> Target:
    raise NoTarget(f"target {name!r} cannot be reached from here: see  edgeloop rollout plan")


def refs_of(fleet: FleetStore, images: ImagesOf) -> Refs:
    """Releases by digest, as the ledger and the pushes of images know them."""
    return lambda service, digest: ReleaseRef(digest, fleet.version_of(service, digest) or "", images(digest))
