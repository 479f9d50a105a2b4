"""What to do next for one service. Pure: it reads no clock and asks nobody, so every order of events can be tried."""

from __future__ import annotations

from dataclasses import dataclass

from edgeloop.clients.registry import Alias
from edgeloop.promotion.records import REFUSED, Facts, Promotion, State, is_among
from edgeloop.samples.delivery import Delivery


@dataclass(frozen=True)
class Nothing:
    """All is as it should be, or nothing can be known."""


@dataclass(frozen=True)
class Begin:
    """The alias names this version: its promotion begins."""

    version: str


@dataclass(frozen=True)
class Close:
    """The open promotion ends. ``stop``: what is under way goes back first."""

    state: State
    reason: str
    stop: bool = False


@dataclass(frozen=True)
class Finish:
    """The newest promotion was refused: stop its rollout, move the alias off it, and remember that it is elsewhere."""


@dataclass(frozen=True)
class Leave:
    """The alias is elsewhere now: setting it again begins anew."""


@dataclass(frozen=True)
class Stop:
    """What is under way was refused while it began."""


@dataclass(frozen=True)
class Build:
    """Package the version."""


@dataclass(frozen=True)
class Rehearse:
    """Run the release on the digital twin."""


@dataclass(frozen=True)
class Wait:
    """Somebody must give a word, or something must end first; the state stays ``state``."""

    state: State
    reason: str


@dataclass(frozen=True)
class Keep:
    """Every ring runs it already."""


@dataclass(frozen=True)
class Roll:
    """Sign it and begin its rollout."""


Action = Nothing | Begin | Close | Finish | Leave | Stop | Build | Rehearse | Wait | Keep | Roll


def decide(alias: Alias | None, now: Promotion | None, last: Promotion | None, facts: Facts, rules: Delivery) -> Action:
    """The one next step.

    Args:
        alias: what the registry answered; None when it did not, and then nothing is decided.
        now: the open promotion; None when there is none.
        last: the newest closed one.
        facts: what was found out about ``now`` and the newest rollout.
        rules: the service's ``delivery``.
    """
    if alias is None:
        return Nothing()
    wanted = alias.version.version if alias.version else None
    if facts.stray:
        return Stop()
    if now is None:
        return _closed(wanted, last)
    if wanted != now.version:
        return _elsewhere(wanted, facts)
    return _released(now, facts) if now.rollout is not None else _next(now, facts, rules)


def _closed(wanted: str | None, last: Promotion | None) -> Action:
    if last and last.left_at is None:
        if last.state in REFUSED:
            return Finish()
        if last.version != wanted:
            return Leave()
    return Begin(wanted) if wanted else Nothing()


def _elsewhere(wanted: str | None, facts: Facts) -> Close:
    """The alias does not name the open promotion any more. Without an alias, or back at the version that the nodes
    would go back to, nothing may go on; another version takes over at the end of a ring instead."""
    rollout = facts.rollout if facts.own else None
    goes_back = rollout is not None and rollout.under_way and wanted == rollout.former_version
    if wanted is None:
        return Close("withdrawn", "the alias champion was deleted", stop=rollout is not None)
    return Close("superseded", f"the alias champion moved to version {wanted}", stop=goes_back)


def _next(now: Promotion, facts: Facts, rules: Delivery) -> Action:
    rollout = facts.rollout
    if facts.release is None:
        return Build()
    if refusal := _refusal(facts, rules):
        return refusal
    if rollout and rollout.everywhere == facts.release:
        return Keep()
    if rollout and rollout.state == "reverting":
        return Wait(now.state, "the nodes go back first")
    if rules.twin.rehearse and facts.rehearsed is None:
        return Rehearse()
    missing = _missing_word(now, facts, rules)
    return Wait("waiting", missing) if missing else Roll()


def _refusal(facts: Facts, rules: Delivery) -> Close | None:
    """What ends it before it begins."""
    if facts.forbidden:
        return Close("rejected", f"{facts.forbidden}; promote another version", stop=False)
    if rules.twin.rehearse and facts.rehearsed == "fail":
        return Close("failed", "the digital twin refused it: see its report", stop=False)
    return None


def _missing_word(now: Promotion, facts: Facts, rules: Delivery) -> str | None:
    """What to ask for before it may roll; None when nothing is missing."""
    unsure = rules.twin.required and facts.rehearsed == "inconclusive"
    if facts.proven or not (rules.approvals.second or unsure):
        return None
    allowed = rules.approvals.by
    words = [a for a in facts.approvals if a.verdict == "approve" and not is_among(a.who, [now.who])]
    if any(not allowed or is_among(a.who, allowed) for a in words):
        return None
    why = "the digital twin was not sure" if unsure else "a second person"
    command = f"edgeloop release approve {now.service} --version {now.version}"
    return (f"{' or '.join(allowed)}, " if allowed else "") + f"{why}: {command}"


def _released(now: Promotion, facts: Facts) -> Action:
    """A version that was begun stays the champion until its rollout, or a person at the rollout, took it back."""
    rollout = facts.rollout
    if rollout is None or now.rollout is None:
        return Nothing()
    if rollout.release == now.release:
        taken_back = rollout.state == "reverted" and rollout.number >= now.rollout
        return Close("reverted", rollout.reason or "its rollout was taken back") if taken_back else Nothing()
    if rollout.number > now.rollout and rollout.state == "done" and rollout.version:
        return Close("reverted", f"version {rollout.version} was rolled out instead: {rollout.reason}")
    if rollout.number < now.rollout:
        return Close("reverted", "its rollout was dropped before its turn")
    return Nothing()
