"""Gathers what a decision needs, and no more than that: most looks find that there is nothing to do."""

from __future__ import annotations

from dataclasses import replace

from edgeloop.promotion.parts import Parts
from edgeloop.promotion.records import REFUSED, Facts, Promotion, Rollout
from edgeloop.samples.service import Service

_STOPPED = REFUSED | {"withdrawn"}
_TAKEN_BACK = {"reverting", "reverted", "aborted"}


def look(parts: Parts, service: Service, now: Promotion | None) -> Facts:
    """The facts about the open promotion and the service's newest rollout."""
    rollout = parts.rollouts.newest(service.name)
    its = parts.promotions.newest_with(service.name, rollout.release) if rollout else None
    base = Facts(rollout=rollout, own=_is_own(rollout, its), stray=_is_stray(rollout, its))
    if now is None or now.release is None or now.rollout is not None:
        return replace(base, release=now.release if now else None)
    is_asked = service.delivery.twin.rehearse
    return replace(
        base,
        release=now.release,
        rehearsed=parts.rehearser.outcome(service, now.release) if is_asked else None,
        approvals=parts.promotions.words(now),
        proven=_is_proven(parts, now, rollout),
        forbidden=_forbidden(parts, service.name, now.release),
    )


def _forbidden(parts: Parts, service: str, release: str) -> str:
    row = parts.fleet.entry(service, "withdraw", release)
    return f"{row['who']} withdrew it: {row['reason']}" if row else ""


def _is_own(rollout: Rollout | None, its: Promotion | None) -> bool:
    """Whether a promotion began the rollout, noted or not yet."""
    return rollout is not None and its is not None and its.rollout in {None, rollout.number}


def _is_proven(parts: Parts, now: Promotion, rollout: Rollout | None) -> bool:
    """Whether the version was on the fleet before and another one took its place, rather than being taken back: also
    not by the alias, which went back while its rollout was under way."""
    before = parts.promotions.newest_of(now.service, now.version, before=now.id)
    if before is None or before.rollout is None or before.state != "superseded":
        return False
    return rollout is None or rollout.number != before.rollout or rollout.state not in _TAKEN_BACK


def _is_stray(rollout: Rollout | None, its: Promotion | None) -> bool:
    """Whether what is under way was refused in the moment between its beginning and the note of it."""
    if rollout is None or not rollout.under_way or rollout.state == "reverting":
        return False
    return its is not None and its.state in _STOPPED and its.rollout is None


def back_to(parts: Parts, service: str, version: str) -> str | None:
    """The version that the alias goes back to when ``version`` is refused; None when there is none.

    A rollout of another release, under way or done, is what the fleet has or gets, and stays.
    """
    rollout = parts.rollouts.newest(service)
    if rollout is None:
        return None
    goes_back = rollout.version in {None, version} or rollout.state in {"reverted", "reverting"}
    found = rollout.former_version if goes_back else rollout.version
    return None if found == version else found


def promoter(parts: Parts, service: str, version: str) -> str:
    """Who set the alias, as far as anybody knows: the gate, who went back to this version, or just ``alias``."""
    last = parts.promotions.last_closed(service)
    if last and last.state == "reverted" and last.former == version and last.closed_by not in {None, "rollout"}:
        return str(last.closed_by)
    judged = parts.fleet.last_judged(service)
    passed = judged is not None and judged["verdict"] == "pass" and judged["version"] == version
    return "gate" if passed and parts.promotions.newest_of(service, version) is None else "alias"
