"""Sums what the nodes of a ring said: one pass over plain rows, no object per node."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from edgeloop.fleet.rollouts.evidence import NO_COUNTS, RingEvidence, Tally
from edgeloop.samples.cohorts import switches
from edgeloop.samples.strategy import Thresholds

#: What :func:`sum_up` takes of each node, in this order; then whether it is online.
NODE_COLUMNS = (
    "node",
    "serving",
    "staged",
    "refused",
    "refused_at",
    "heard_at",
    "last_error",
    "counted",
    "counted_of",
    "former",
    "former_until",
    "former_counted",
)
#: Answers, audits and confidences of one node that count; more are scaled down to it.
PER_NODE = 200
#: A node that still refuses so long after it was told has tried again.
_TRIED_AGAIN = timedelta(seconds=120)


@dataclass
class _Sum:
    answered: int = 0
    failed: int = 0
    audited: int = 0
    agreed: int = 0
    histogram: list[int] = field(default_factory=lambda: list(NO_COUNTS))

    def add(self, counted: dict[str, Any]) -> None:
        """Add one node's part."""
        answered, failed = _capped(counted["answered"], counted["failed"])
        other, agreed = _capped(counted["audited"] - counted["agreed"], counted["agreed"])
        self.answered += answered
        self.failed += failed
        self.audited += other + agreed
        self.agreed += agreed
        for number, count in enumerate(_capped(*counted["histogram"])):
            self.histogram[number] += count

    def tally(self) -> Tally:
        return Tally(self.answered, self.failed, self.audited, self.agreed, tuple(self.histogram))


def _capped(*parts: int) -> tuple[int, ...]:
    """``parts`` scaled down so that they are :data:`PER_NODE` together; what has happened at all stays at least 1."""
    total = sum(parts)
    if total <= PER_NODE:
        return parts
    return tuple(max(1, round(part * PER_NODE / total)) if part else 0 for part in parts)


def sum_up(
    rows: Iterable[Any],
    release: str,
    former: str | None,
    salt: str,
    below: str,
    limits: Thresholds,
    *,
    since: datetime | None,
    complete: bool,
) -> RingEvidence:
    """The evidence of the ring whose nodes ``rows`` are: :data:`NODE_COLUMNS`, then whether each is online."""
    known = dict.fromkeys(("nodes", "online", "touched", "touched_online", "staged", "switched"), 0)
    known |= dict.fromkeys(("failed", "lost", "timed", "slow"), 0)
    now, before, first = _Sum(), _Sum(), ""
    for row in rows:
        node, serving, staged, is_online = row[0], row[1], row[2], bool(row[-1])
        known["nodes"] += 1
        known["online"] += is_online
        known["staged"] += is_online and release in {staged, serving}
        if not switches(salt, node, below):
            continue
        known["touched"] += 1
        known["touched_online"] += is_online
        known["switched"] += is_online and serving == release
        known["lost"] += serving == release and not is_online
        if word := _failure(row, release, since):
            known["failed"] += 1
            first = first or f"{node}: {word}"
        timed, slow = _count(row, release, former, limits, now, before)
        known["timed"] += timed
        known["slow"] += slow
    return RingEvidence(
        **known,
        first_failure=first,
        release=now.tally(),
        former=before.tally(),
        is_first=former is None,
        complete=complete,
    )


def _failure(row: Any, release: str, since: datetime | None) -> str:
    """How a node failed with ``release``; empty when it did not."""
    _, serving, _, refused, refused_at, heard_at, error, *_, was, until, _, _ = row
    if serving == release:
        return ""
    if refused == release and _counts(refused_at, heard_at, since):
        return error or "gave it up, no reason given"
    if was == release and (since is None or _utc(until) >= since):
        return f"fell back from it ({error or 'no reason given'})"
    return ""


def _counts(refused_at: datetime, heard_at: datetime, since: datetime | None) -> bool:
    return since is None or _utc(refused_at) >= since or _utc(heard_at) >= since + _TRIED_AGAIN


def _utc(at: datetime) -> datetime:
    """SQLite forgets the zone."""
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def _count(
    row: Any, release: str, former: str | None, limits: Thresholds, now: _Sum, before: _Sum
) -> tuple[bool, bool]:
    """Add a node's counts; whether its p99 can be compared, and whether it is too slow."""
    counted, counted_of, was, _, was_counted = row[7:12]
    if counted_of != release:
        if was == release and was_counted:
            now.add(json.loads(was_counted))
        return False, False
    mine = json.loads(counted)
    now.add(mine)
    if former is None or was != former or not was_counted:
        return False, False
    old = json.loads(was_counted)
    before.add(old)
    least, both = limits.min_answers, (mine["p99"], old["p99"])
    if None in both or min(mine["answered"], old["answered"]) < least:
        return False, False
    ratio = limits.max_latency_ratio
    return True, ratio is not None and mine["p99"] > ratio * old["p99"]
