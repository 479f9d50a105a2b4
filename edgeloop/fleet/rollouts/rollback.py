"""One command back to the release that was good before, on all rings at once."""

from __future__ import annotations

from collections.abc import Callable

from edgeloop.errors import BadInput
from edgeloop.fleet.channel import Rings
from edgeloop.fleet.rollouts.commands import revert
from edgeloop.fleet.rollouts.standing import freeze, what_stands, within_the_hour
from edgeloop.fleet.rollouts.state_store import ATTEMPTS, Beginning, StateStore, busy
from edgeloop.fleet.rollouts.states import View
from edgeloop.fleet.rollouts.status import RolloutStatus, status_of
from edgeloop.samples.records import now
from edgeloop.samples.service import Service
from edgeloop.store import FleetStore


class NothingToRollBack(BadInput):
    """No release of the service was good before the present one."""


def rollback(
    fleet: FleetStore,
    channel: Rings,
    service: Service,
    who: str,
    reason: str,
    check: Callable[[Service, str], None] = lambda _service, _release: None,
) -> RolloutStatus:
    """Take all rings at once to the release that was good before; what is under way is reverted.

    Args:
        check: raises BadInput where that release cannot be brought to the service's rings; what is under way can be
            reverted all the same.

    Raises:
        NothingToRollBack: there was none.
    """
    store = StateStore(fleet.database)
    for _ in range(ATTEMPTS):
        active, queued = store.opened(service.name)
        opened = active or queued
        if opened is not None and (opened.view.state == "reverting" or opened.view.everywhere):
            return status_of(opened.view)
        if opened is not None:
            if opened.view.former is None:
                raise _nothing(service.name)
            return revert(fleet, service.name, who, reason)
        try:
            return status_of(store.begin(_back(store, channel, service, who, reason, check), now()))
        except Beginning:
            continue
    raise busy(service.name)


def _back(
    store: StateStore,
    channel: Rings,
    service: Service,
    who: str,
    reason: str,
    check: Callable[[Service, str], None],
) -> View:
    stands = what_stands(store, channel, service.name, service.rings)
    present = next(iter(set(stands.values()))) if len(set(stands.values())) == 1 else None
    left = _left_behind(store, service.name)
    good = (one for one in store.good(service.name) if one != present and one not in left)
    target = next((one for one in good if channel.allowed(service.name, one)), None)  # the others were withdrawn
    if target is None:
        raise _nothing(service.name)
    check(service, target)
    row = store.row(service.name)
    leaves = present or (str(row["digest"]) if row else None)
    why = f"rolled back by {who}: {reason}"
    view = freeze(service, target, why, who, stands, leaves)
    return within_the_hour(store, view.model_copy(update={"everywhere": True, "leaves": leaves}))


def _left_behind(store: StateStore, service: str) -> set[str]:
    """Releases that a rollback left and that were not rolled out to the end since."""
    left: set[str] = set()
    again: set[str] = set()
    for view in store.ended(service):
        if view.state == "done" and not view.everywhere:
            again.add(view.release)
        if view.everywhere and view.leaves and view.leaves not in again:
            left.add(view.leaves)
    return left


def _nothing(service: str) -> NothingToRollBack:
    return NothingToRollBack(f"{service} has no good release before the present one: promote another version")
