"""Sums what the nodes of a ring said: one pass over plain rows, no object per node."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from edgeloop.fleet.rollouts.evidence import RingEvidence, Tally
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
#: The p99 of no more answers is the slowest of them.
_P99_LEAST = 101
#: A node that still refuses so long after it was told has tried again.
_TRIED_AGAIN = timedelta(seconds=120)


@dataclass
class _Sum:
    """Parts of a whole, each node's at most :data:`PER_NODE` together."""

    parts: list[float]

    def add(self, parts: Sequence[float]) -> None:
        """Add one node's part."""
        share = min(1.0, PER_NODE / max(1, sum(parts)))
        for number, part in enumerate(parts):
            self.parts[number] += part * share

    def counts(self) -> tuple[int, ...]:
        return tuple(round(part) for part in self.parts)


@dataclass
class _Weighed:
    """Parts of a whole under the former release, each node counting as much as it does under the release.

    Else a release would be blamed for which nodes are busy now. The count is the effective one of such a mean,
    (sum of weights)^2 / (sum of weight^2 / count): L. Kish, "Survey Sampling", 1965.
    """

    parts: list[float]
    weight: float = 0.0
    spread: float = 0.0

    def add(self, parts: Sequence[float], weighed: Sequence[float]) -> None:
        """Add one node's part; its weight is the count of ``weighed``, of the same node under the release."""
        total, weight = float(sum(parts)), float(min(PER_NODE, sum(weighed)))
        if not total or not weight:
            return
        self.weight += weight
        self.spread += weight * weight / min(PER_NODE, total)
        for number, part in enumerate(parts):
            self.parts[number] += weight * part / total

    def counts(self) -> tuple[int, ...]:
        share = self.weight / self.spread if self.spread else 0.0
        return tuple(round(part * share) for part in self.parts)


class _Sums:
    """What nodes counted under the release and under the former one."""

    def __init__(self) -> None:
        self.requests, self.audits, self.confidences = _Sum([0.0] * 2), _Sum([0.0] * 2), _Sum([0.0] * 10)
        self.before = _Weighed([0.0] * 2), _Sum([0.0] * 2), _Weighed([0.0] * 10)

    def add(self, counted: Mapping[str, Any]) -> None:
        """Add what a node counted under the release."""
        requests, audits, histogram = _parts(counted)
        self.requests.add(requests)
        self.audits.add(audits)
        self.confidences.add(histogram)

    def compare(self, old: Mapping[str, Any], now: Mapping[str, Any]) -> None:
        """Add what it counted before. Labels are few: all of them count."""
        requests, audits, histogram = self.before
        before, after = _parts(old), _parts(now)
        requests.add(before[0], after[0])
        audits.add(before[1])
        histogram.add(before[2], after[2])

    def tallies(self) -> tuple[Tally, Tally]:
        """Of the release, and of the former one."""
        return _tally(self.requests, self.audits, self.confidences), _tally(*self.before)


def _tally(requests: _Sum | _Weighed, audits: _Sum, confidences: _Sum | _Weighed) -> Tally:
    (answered, failed), (other, agreed) = requests.counts(), audits.counts()
    return Tally(answered, failed, other + agreed, agreed, confidences.counts())


def _parts(counted: Mapping[str, Any]) -> tuple[Sequence[float], Sequence[float], Sequence[float]]:
    audits = counted["audited"] - counted["agreed"], counted["agreed"]
    return (counted["answered"], counted["failed"]), audits, counted["histogram"]


def sum_up(
    rows: Iterable[Any],
    release: str,
    former: str | None,
    salt: str,
    below: str,
    limits: Thresholds,
    *,
    since: datetime | None,
    batch_since: datetime | None = None,
    complete: bool,
) -> RingEvidence:
    """The evidence of the ring whose nodes ``rows`` are: :data:`NODE_COLUMNS`, then whether each is online."""
    known = dict.fromkeys(("nodes", "online", "touched", "touched_online", "staged", "switched"), 0)
    known |= dict.fromkeys(("failed", "failed_away", "lost", "timed", "slow"), 0)
    sums, first = _Sums(), ""
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
        known["lost"] += serving == release and not is_online and _is_after(row[5], since)
        if word := _failure(row, release, since, batch_since or since):
            known["failed"] += 1
            known["failed_away"] += not is_online
            first = first or f"{node}: {word}"
        timed, slow = _count(row, release, former, limits, sums, since)
        known["timed"] += timed
        known["slow"] += slow
    tally, before = sums.tallies()
    return RingEvidence(
        **known,
        first_failure=first,
        release=tally,
        former=before,
        is_first=former is None,
        complete=complete,
    )


def _failure(row: Any, release: str, since: datetime | None, batch_since: datetime | None) -> str:
    """How a node failed with ``release``; empty when it did not."""
    _, serving, _, refused, refused_at, heard_at, error, *_, was, until, _, _ = row
    if serving == release:
        return ""
    if refused == release and _counts(refused_at, heard_at, since):
        return error or "gave it up, no reason given"
    if was == release and _is_after(until, batch_since):
        return f"fell back from it ({error or 'no reason given'})"
    return ""


def _counts(refused_at: datetime, heard_at: datetime, since: datetime | None) -> bool:
    return _is_after(refused_at, since) or since is None or _is_after(heard_at, since + _TRIED_AGAIN)


def _is_after(at: datetime, since: datetime | None) -> bool:
    return since is None or _utc(at) >= since


def _utc(at: datetime) -> datetime:
    """SQLite forgets the zone."""
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def _count(
    row: Any, release: str, former: str | None, limits: Thresholds, sums: _Sums, since: datetime | None
) -> tuple[bool, bool]:
    """Add a node's counts; whether its p99 can be compared, and whether it is too slow."""
    heard_at, _, counted, counted_of, was, until, was_counted = row[5:12]
    if not _is_after(heard_at, since):  # it was counted before, and nobody knows what it would say now
        return False, False
    if counted_of != release:
        if was == release and was_counted and _is_after(until, since):
            left = json.loads(was_counted)
            sums.add(left)
            if counted_of == former:
                sums.compare(json.loads(counted), left)
        return False, False
    mine = json.loads(counted)
    sums.add(mine)
    if former is None or was != former or not was_counted:
        return False, False
    old = json.loads(was_counted)
    sums.compare(old, mine)
    ratio, both = limits.max_latency_ratio, (mine["p99"], old["p99"])
    if None in both or min(_timed(mine), _timed(old)) < max(limits.min_answers, _P99_LEAST):
        return False, False
    return True, ratio is not None and mine["p99"] > ratio * old["p99"]


def _timed(counted: Mapping[str, Any]) -> int:
    """The answers that its p99 is of."""
    return int(counted.get("timed", counted["answered"]))
