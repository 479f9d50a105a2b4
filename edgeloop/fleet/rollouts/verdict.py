"""Whether a ring may go on: pass, fail, or not known yet, from what its nodes say of the release.

Every check looks at counts and sums, and says in words what it found. A rate fails a ring only when a bound that holds
at every look says so; too few answers say nothing, and stop nobody unless they are asked for.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from edgeloop.fleet.rollouts.bounds import interval, shift
from edgeloop.fleet.rollouts.evidence import RingEvidence
from edgeloop.samples.strategy import Thresholds

Outcome = Literal["pass", "fail", "inconclusive"]
#: Chance that the rates of a harmless release fail a ring, at any of its looks; shared out among the checks of rates.
ALPHA = 0.05
_EACH = ALPHA / 3
_SLACK = 1e-9


@dataclass(frozen=True)
class Check:
    """What one look at a ring found."""

    name: str
    """``nodes``, ``latency``, ``errors``, ``accuracy`` or ``confidence``."""
    outcome: Outcome
    text: str
    required: bool = True
    """Whether it must not stay inconclusive."""


@dataclass(frozen=True)
class Verdict:
    """What is to be made of a ring."""

    outcome: Outcome
    checks: Sequence[Check]
    reason: str
    """Of a pass what the nodes do; else the checks that failed or are waited for."""


def judge_ring(evidence: RingEvidence, limits: Thresholds, waited: timedelta) -> Verdict:
    """Judge a ring that has waited so long since its last switch.

    Any failed check fails it. Else a required check that is inconclusive, or a fleet that was only heard in part, makes
    it inconclusive. ``waited`` is only told, in the reason: how long is too long is the rollout's to know.
    """
    checks = [nodes_check(evidence, limits)]
    if limits.max_latency_ratio is not None:
        checks.append(latency_check(evidence, limits, limits.max_latency_ratio))
    if limits.max_error_rate is not None:
        checks.append(errors_check(evidence, limits, limits.max_error_rate))
    if limits.max_accuracy_drop is not None:
        checks.append(accuracy_check(evidence, limits, limits.max_accuracy_drop))
    if limits.max_confidence_shift is not None:
        checks.append(confidence_check(evidence, limits, limits.max_confidence_shift))
    failed = [c for c in checks if c.outcome == "fail"]
    if failed:
        return Verdict("fail", checks, "; ".join(c.text for c in failed))
    open_ones = [c.text for c in checks if c.required and c.outcome == "inconclusive"]
    if not evidence.complete:
        open_ones.append("the broker did not tell all that it keeps")
    if open_ones:
        return Verdict("inconclusive", checks, f"{'; '.join(open_ones)}, after {_shown(waited)}")
    return Verdict("pass", checks, checks[0].text)


def allowed_failures(limits: Thresholds, nodes: int) -> int:
    """How many nodes of a ring of so many may fail."""
    return math.floor(limits.max_failed * nodes + _SLACK)


def nodes_check(evidence: RingEvidence, limits: Thresholds) -> Check:
    """Enough nodes serve it, and not too many gave it up. Nodes that were lost with it count as undecided."""
    name, allowed = "nodes", allowed_failures(limits, evidence.nodes)
    if evidence.failed > allowed:
        more = f"{evidence.failed} nodes failed and {allowed} may; " if allowed else ""
        return Check(name, "fail", f"{more}{evidence.first_failure or 'a node failed'}")
    expected = evidence.touched_online + evidence.lost
    text = f"{evidence.switched} of {expected} nodes serve it"
    if evidence.lost:
        text += f", {evidence.lost} were lost with it"
    if not expected:
        return Check(name, "inconclusive", "no node that shall serve it is online")
    if evidence.switched + evidence.failed - evidence.failed_away < limits.quorum * expected - _SLACK:
        return Check(name, "inconclusive", text)
    if not evidence.switched:
        return Check(name, "inconclusive", text)
    return Check(name, "pass", text)


def latency_check(evidence: RingEvidence, limits: Thresholds, ratio: float) -> Check:
    """Not too many of the nodes with enough answers under both releases are slower than ``ratio`` times before."""
    name, allowed = "latency", allowed_failures(limits, evidence.nodes)
    text = f"{evidence.slow} of {evidence.timed} nodes are over {ratio:g} times their p99 of before"
    if evidence.slow > allowed:
        return Check(name, "fail", text)
    if not evidence.timed:
        return Check(name, "inconclusive", "no node has enough answers to compare its p99", required=False)
    return Check(name, "pass", text)


def errors_check(evidence: RingEvidence, limits: Thresholds, allowed: float) -> Check:
    """The rate of failed requests is at most ``allowed`` above that of the former release.

    It is required while it looks too high and is not yet sure to be.
    """
    name, now, before = "errors", evidence.release, evidence.former
    if now.answered + now.failed < limits.min_answers:
        return Check(name, "inconclusive", f"only {now.answered + now.failed} requests", required=False)
    total, total_before = now.answered + now.failed, before.answered + before.failed
    rate, (low, high) = now.failed / total, interval(now.failed, total, _EACH / 2)
    former = (0.0, 0.0)
    if total_before >= limits.min_answers:
        former = before.failed / total_before, interval(before.failed, total_before, _EACH / 2)[1]
    text = f"{rate:.1%} of {total} requests failed (at least {low:.1%}; before {former[0]:.1%}, limit +{allowed:.1%})"
    if low > former[1] + allowed:
        return Check(name, "fail", text)
    if high <= former[0] + allowed:
        return Check(name, "pass", text)
    return Check(name, "inconclusive", text, required=rate > former[0] + allowed)


def accuracy_check(evidence: RingEvidence, limits: Thresholds, drop: float) -> Check:
    """Audited accuracy is at most ``drop`` below that of the former release on the same nodes."""
    name, now, before = "accuracy", evidence.release, evidence.former
    few = now.audited if now.audited < limits.min_answers else None
    few = before.audited if few is None and before.audited < limits.min_answers else few
    if few is not None:
        of = "the release" if now.audited < limits.min_answers else "the former release"
        text = f"only {few} audited answers of {of} have a label"
        return Check(name, "inconclusive", text, required=limits.require_accuracy and not evidence.is_first)
    rate, (low, high) = now.agreed / now.audited, interval(now.agreed, now.audited, _EACH / 2)
    former, surely = before.agreed / before.audited, interval(before.agreed, before.audited, _EACH / 2)[0]
    text = f"audited accuracy {rate:.1%} of {now.audited} (at most {high:.1%}; before {former:.1%}, limit -{drop:.1%})"
    if high < surely - drop:
        return Check(name, "fail", text)
    if low >= former - drop:
        return Check(name, "pass", text)
    return Check(name, "inconclusive", text, required=limits.require_accuracy or rate < former - drop)


def confidence_check(evidence: RingEvidence, limits: Thresholds, limit: float) -> Check:
    """The confidences are spread as they were under the former release, but for ``limit`` of them."""
    name, now, before = "confidence", evidence.release.histogram, evidence.former.histogram
    if min(sum(now), sum(before)) < limits.min_answers:
        return Check(name, "inconclusive", f"only {min(sum(now), sum(before))} confidences", required=False)
    distance, off = shift(before, now, _EACH)
    text = f"{distance:.1%} of the confidences moved (give or take {off:.1%}; limit {limit:.1%})"
    if distance - off > limit:
        return Check(name, "fail", text)
    if distance + off <= limit:
        return Check(name, "pass", text)
    return Check(name, "inconclusive", text, required=distance > limit)


def _shown(waited: timedelta) -> str:
    return f"{max(0, round(waited.total_seconds()))} s"
