"""The reconciler: whatever the alias ``champion`` names, set by the gate or by hand, becomes what the fleet runs.

Each pass looks, decides one step and does it, until there is nothing left to do. It may be cut off anywhere and may run
twice at a time: steps are idempotent, and what one of two wrote first counts.
"""

from __future__ import annotations

import logging

from pydantic import BaseModel

from edgeloop.clients.registry import Alias, UnknownVersion
from edgeloop.errors import EdgeloopError
from edgeloop.promotion import deciding
from edgeloop.promotion.deciding import Action, decide
from edgeloop.promotion.looking import back_to, look, promoter
from edgeloop.promotion.parts import Parts
from edgeloop.promotion.records import Promotion, State
from edgeloop.samples.service import Service

_log = logging.getLogger(__name__)
#: More steps than any promotion has; a pass that takes more goes in a circle.
_STEPS = 24


class CircularPromotion(EdgeloopError):
    """A pass of the reconciler did not come to an end."""


class PromotionStatus(BaseModel):
    """Where the service's promotion stands after a pass."""

    service: str
    version: str | None
    """None: no version is champion."""
    release: str | None = None
    state: State | None = None
    reason: str = ""
    who: str = ""
    former: str | None = None
    started: bool = False
    """Whether this pass began a rollout."""


def reconcile(parts: Parts, service: Service) -> PromotionStatus:
    """Do all that can be done now for one service.

    Raises:
        RegistryUnavailable: the registry is away; nothing was decided, and nothing is read as deleted.
        ForeignVersion: the alias names a version that edgeloop did not register; nothing was done.
        EdgeloopError: a step failed; its reason is kept, and the next pass tries again.
    """
    started, alias = False, parts.registry.alias(service.name)
    for _ in range(_STEPS):
        step = _Step(parts, service, alias)
        going = step.take()
        if step.alias_may_differ:
            alias = parts.registry.alias(service.name)
        started = started or step.started
        if not going:
            return describe(parts, service.name, started)
    raise CircularPromotion(f"the promotion of {service.name} takes no end: see  edgeloop release status")


def describe(parts: Parts, service: str, started: bool = False) -> PromotionStatus:
    """Where the newest promotion of a service stands; nothing is asked of the registry."""
    found = parts.promotions.current(service) or parts.promotions.last_closed(service)
    if found is None:
        return PromotionStatus(service=service, version=None)
    values = {name: getattr(found, name) for name in ("version", "release", "state", "reason", "who", "former")}
    return PromotionStatus(service=service, started=started, **values)


class _Step:
    """One look, one decision, and what was decided."""

    def __init__(self, parts: Parts, service: Service, alias: Alias) -> None:
        self._parts = parts
        self._service = service
        self._kept = parts.promotions
        self._alias = alias
        self._now = self._kept.current(service.name)
        self._last = self._kept.last_closed(service.name)
        self._facts = look(parts, service, self._now)
        self.started = False
        self.alias_may_differ = False
        """It was moved, or so much time went by that somebody may have moved it."""

    def take(self) -> bool:
        """Do it; whether there may be more to do. Why it cannot be done is kept for whoever asks where it stands."""
        try:
            return self._take()
        except EdgeloopError as error:
            now = self._kept.current(self._service.name)  # it may say another reason by now
            if now and self._now and now.id == self._now.id:
                self._kept.note(now, reason=str(error))
            raise

    def _take(self) -> bool:
        action = decide(self._alias, self._now, self._last, self._facts, self._service.delivery)
        _log.debug("%s: %s", self._service.name, action)
        match action:
            case deciding.Begin(version):
                self._begin(version)
            case deciding.Finish() if self._last:
                self.alias_may_differ = True
                finish(self._parts, self._service, self._last)
            case deciding.Leave() if self._last:
                self._kept.left(self._last)
            case deciding.Stop():
                self._parts.rollouts.stop(self._service, "alias", "its version was refused while it began")
                return False
            case _ if self._now:
                return self._advance(self._now, action)
            case _:
                return False
        return True

    def _begin(self, version: str) -> None:
        """Begin, if the alias still says so: what was closed and left since it was read must not begin again."""
        name = self._service.name
        self.alias_may_differ = True
        fresh = self._parts.registry.alias(name).version
        if fresh is None or fresh.version != version:
            return
        former = back_to(self._parts, name, version)
        self._kept.begin(name, version, former, promoter(self._parts, name, version))

    def _advance(self, now: Promotion, action: Action) -> bool:
        release = self._facts.release
        match action:
            case deciding.Close():
                self._close(now, action)
            case deciding.Build():
                self.alias_may_differ = True
                self._build(now)
            case deciding.Rehearse() if release:
                self.alias_may_differ = True
                self._kept.note(now, state="rehearsing", release=release, reason="on the digital twin")
                self._parts.rehearser.rehearse(self._service, release)
            case deciding.Wait(state, reason):
                self._kept.note(now, state=state, release=release, reason=reason)
                return False
            case deciding.Keep() if self._facts.rollout:
                reached = {"state": "released", "reason": "every ring runs it", "rollout": self._facts.rollout.number}
                self._kept.note(now, release=release, **reached)
            case deciding.Roll() if release:
                return self._roll(now, release)
            case _:
                return False
        return True

    def _build(self, now: Promotion) -> None:
        version = self._alias.version
        assert version is not None
        release = self._parts.builder.build(self._service, version)
        self._kept.note(now, release=release, reason="")

    def _roll(self, now: Promotion, release: str) -> bool:
        words = [word.who for word in self._facts.approvals if word.verdict == "approve"]
        awaited = self._parts.signer.approve(self._service.name, release, self._said(release, words))
        still_open = self._kept.note(now, state="signing", release=release, reason=awaited or "")
        if awaited and not still_open:
            self._parts.signer.forget(self._service.name, release)
        if awaited or not still_open:
            return not awaited
        who = promoter(self._parts, now.service, now.version) if now.who == "alias" else now.who
        why = f"version {now.version} is champion" + (f", approved by {', '.join(words)}" if words else "")
        # A promotion begins when the alias is set; one before it means that the alias was elsewhere in between.
        again = self._kept.newest_of(now.service, now.version, before=now.id) is not None
        self.started = self._parts.rollouts.start(self._service, release, who, why, again)
        rollout = self._parts.rollouts.newest(now.service)
        self._kept.note(now, state="released", reason=why, rollout=rollout.number if rollout else 0)
        return True

    def _said(self, release: str, words: list[str]) -> dict[str, list[str]]:
        """What is signed beside the approval: who gave a word, and what the twin reported. There is room for few."""
        is_rehearsed = self._service.delivery.twin.rehearse
        report = self._parts.rehearser.report(self._service, release) if is_rehearsed else None
        said = {"approved": words[:1], "twin": [report] if report else []}
        return {name: values for name, values in said.items() if values}

    def _close(self, now: Promotion, action: deciding.Close) -> None:
        """Stopped first: until the row says otherwise, the next pass decides the same again."""
        under_way = self._facts.rollout is not None and self._facts.rollout.under_way
        if action.stop and under_way:
            self._parts.rollouts.stop(self._service, "alias", action.reason)
        _ask_no_more(self._parts, now)
        event, who = _CLOSERS[action.state]
        back = now.former
        if action.state != "superseded":
            back = back_to(self._parts, now.service, now.version)
        self._kept.close(now, action.state, action.reason, who, back, event)


#: What the ledger calls it, and whose doing it was. The rollout has written its own row when it takes itself back.
_CLOSERS = {
    "withdrawn": ("withdraw", "alias"),
    "superseded": ("", "alias"),
    "reverted": ("", "rollout"),
    "failed": ("reject", "twin"),
    "rejected": ("reject", "channel"),
}


def finish(parts: Parts, service: Service, refused: Promotion) -> str | None:
    """See a refusal through: stop its rollout, say so at its version, and move the alias off it. Idempotent.

    Returns:
        The version that the alias went back to; None when it was deleted.

    Raises:
        RegistryUnavailable: nodes go back all the same; the reconciler moves the alias later.
    """
    rollout = parts.rollouts.newest(service.name)
    who, why = refused.closed_by or "alias", refused.reason
    if rollout and rollout.under_way and rollout.release == refused.release:
        parts.rollouts.stop(service, who, why)
    back, alias = refused.former, parts.registry.alias(service.name).version
    if alias and alias.version == refused.version:
        parts.registry.stamp(service.name, refused.version, {"refused": f"{refused.state} by {who}: {why}"[:250]})
        back = _move_alias(parts, service.name, refused.former)
    _ask_no_more(parts, refused)
    parts.promotions.left(refused)
    return back


def _move_alias(parts: Parts, service: str, to: str | None) -> str | None:
    """To the former version; a former one that was deleted since must not leave the alias on what was refused."""
    if to is not None:
        try:
            parts.registry.set_champion(service, to)
            return to
        except UnknownVersion as error:
            _log.error("the alias champion is deleted instead: %s", error)
    parts.registry.clear_champion(service)
    return None


def _ask_no_more(parts: Parts, closed: Promotion) -> None:
    """Nobody shall sign what is promoted no more; where its rollout was begun, it is signed already."""
    if closed.release and closed.rollout is None:
        parts.signer.forget(closed.service, closed.release)
