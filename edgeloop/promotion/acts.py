"""What people do with a promotion: approve it, reject it, or go back. Each is a row in the ledger: who, why, from what.

A decision is written down first and carried out after that; what a registry that is away keeps from being carried out,
the reconciler does later.
"""

from __future__ import annotations

from pydantic import BaseModel

from edgeloop.clients.registry import ForeignVersion, RegistryUnavailable
from edgeloop.errors import BadInput
from edgeloop.promotion.looking import back_to
from edgeloop.promotion.parts import Parts
from edgeloop.promotion.reconcile import finish
from edgeloop.promotion.records import Promotion, is_among
from edgeloop.samples.service import Service


class NothingWaits(BadInput):
    """There is no promotion that could be approved or rejected."""


class SameApprover(BadInput):
    """A second approval was to come from somebody who has spoken already."""


class NotAnApprover(BadInput):
    """The service names who may approve, and this is somebody else."""


class NoReason(BadInput):
    """Nobody could learn from the ledger why this was done."""


class NothingToGoBackTo(BadInput):
    """There is no earlier version to go back to."""


class Act(BaseModel):
    """What was done."""

    service: str
    version: str | None
    """The version that it was done to."""
    back_to: str | None = None
    """The version that the alias goes back to."""
    alias_moved: bool = True
    """False when the registry was away: the reconciler moves the alias when it is back."""


def approve(parts: Parts, service: Service, who: str, reason: str, version: str | None = None) -> Act:
    """Give the second word that a promotion waits for; the reconciler goes on with it.

    Args:
        version: that was looked at; None for whichever waits, which the alias may have changed a moment ago.

    Raises:
        NothingWaits, NotAnApprover, SameApprover: nothing was written.
    """
    now = parts.promotions.current(service.name)
    if now is None or now.state != "waiting":
        raise NothingWaits(
            f"no version of {service.name} waits for approval ({_where(now)}): see  edgeloop release status"
        )
    if version not in (None, now.version):
        raise NothingWaits(
            f"version {version} of {service.name} does not wait, version {now.version} does: look at that one first"
        )
    allowed = service.delivery.approvals.by
    if allowed and not is_among(who, allowed):
        raise NotAnApprover(
            f"{who} may not approve {service.name}: ask {' or '.join(allowed)}, or mend delivery.approvals"
        )
    spoken = [now.who, *(word.who for word in parts.promotions.words(now))]
    if is_among(who, spoken) or not parts.promotions.say(now, who, reason):
        raise SameApprover(f"{who} has already spoken for version {now.version} of {service.name}: ask somebody else")
    return Act(service=service.name, version=now.version)


def reject(parts: Parts, service: Service, who: str, reason: str) -> Act:
    """Refuse what is being promoted: what is under way stops, nodes go back, and so does the alias.

    Raises:
        NothingWaits: there is no promotion, or it is all over the fleet.
        NoReason: nothing was written.
    """
    _check_reason(reason)
    now = parts.promotions.current(service.name)
    if now is None or _is_out(parts, now):
        way = f"edgeloop release revert {service.name}" if now else "edgeloop release status"
        raise NothingWaits(f"nothing of {service.name} can be rejected ({_where(now)}): {way}")
    back = back_to(parts, service.name, now.version)
    if not parts.promotions.close(now, "rejected", reason, who, back, "reject"):
        raise NothingWaits(
            f"version {now.version} of {service.name} was closed meanwhile: see  edgeloop release status"
        )
    return _finish(parts, service, now, back)


def revert(parts: Parts, service: Service, who: str, reason: str, to: str | None = None) -> Act:
    """Go back to the version before, or to version ``to``: the alias moves, and the fleet after it.

    Raises:
        NothingToGoBackTo, NoReason, UnknownVersion, ForeignVersion: nothing was written.
        RegistryUnavailable: likewise; the fleet alone goes back with  edgeloop rollback.
    """
    _check_reason(reason)
    now = _open_promotion(parts, service)
    back = _target(parts, service, now.version, to)
    if not parts.promotions.close(now, "reverted", reason, who, back, "revert"):
        raise NothingToGoBackTo(
            f"version {now.version} of {service.name} was closed meanwhile: see  edgeloop release status"
        )
    return _finish(parts, service, now, back)


def _open_promotion(parts: Parts, service: Service) -> Promotion:
    """The promotion of what the alias names; raises NothingToGoBackTo when the reconciler never saw it."""
    alias = parts.registry.alias(service.name).version
    now = parts.promotions.current(service.name)
    if alias is None:
        raise NothingToGoBackTo(f"no version of {service.name} is champion: there is nothing to go back from")
    if now is None or now.version != alias.version:
        raise NothingToGoBackTo(
            f"version {alias.version} of {service.name} is champion and was not looked at yet: run the flow release,"
            " or set the alias yourself"
        )
    return now


def _target(parts: Parts, service: Service, version: str, to: str | None) -> str:
    if to is not None:
        found = parts.registry.version(service.name, to).version
    else:
        rollout = parts.rollouts.newest(service.name)
        found = (rollout.former_version if rollout else None) or ""
    if not found or found == version:
        raise NothingToGoBackTo(
            f"there is no version of {service.name} to go back to from {version}: name one with --to, see MLflow"
        )
    if to is None:
        parts.registry.version(service.name, found)
    return found


def _finish(parts: Parts, service: Service, now: Promotion, back: str | None) -> Act:
    done = Act(service=service.name, version=now.version, back_to=back)
    closed = parts.promotions.last_closed(service.name)
    try:
        if closed and closed.id == now.id:
            return done.model_copy(update={"back_to": finish(parts, service, closed)})
    except (RegistryUnavailable, ForeignVersion):
        return done.model_copy(update={"alias_moved": False})
    return done


def _is_out(parts: Parts, now: Promotion) -> bool:
    rollout = parts.rollouts.newest(now.service)
    return rollout is not None and now.rollout is not None and not rollout.under_way


def _check_reason(reason: str) -> None:
    if not reason.strip():
        raise NoReason("--reason is empty: say why in a few words, the ledger keeps them")


def _where(now: Promotion | None) -> str:
    return f"version {now.version} is {now.state}" if now else "no promotion is open"
