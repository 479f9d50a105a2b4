"""A ring passes, fails or waits for what its nodes show; the words say which of them and why."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeloop.fleet.rollouts.evidence import RingEvidence, Tally
from edgeloop.fleet.rollouts.verdict import ALPHA, Verdict, judge_ring
from edgeloop.samples.strategy import Thresholds

FLAT = (40,) * 10
STEEP = (0,) * 9 + (400,)


def ring(nodes: int = 1, **changes: Any) -> RingEvidence:
    """A ring all of whose nodes serve the release, quietly."""
    sound = RingEvidence(nodes=nodes, online=nodes, touched=nodes, touched_online=nodes, staged=nodes, switched=nodes)
    return replace(sound, **changes)


def judge(evidence: RingEvidence, **limits: Any) -> Verdict:
    return judge_ring(evidence, Thresholds(**limits), timedelta(seconds=35))


def outcomes(verdict: Verdict) -> dict[str, str]:
    return {check.name: check.outcome for check in verdict.checks}


def test_a_ring_of_one_passes_the_moment_its_node_serves() -> None:
    verdict = judge(ring())
    assert (verdict.outcome, verdict.reason) == ("pass", "1 of 1 nodes serve it")
    assert outcomes(verdict) == {"nodes": "pass", "errors": "inconclusive", "accuracy": "inconclusive"}
    assert judge(ring(switched=0)).outcome == "inconclusive"


@pytest.mark.parametrize(("nodes", "failed", "expected"), [(1, 1, "fail"), (19, 1, "fail"), (20, 1, "pass")])
def test_any_failure_fails_a_small_ring(nodes: int, failed: int, expected: str) -> None:
    evidence = ring(nodes, switched=nodes - failed, failed=failed, first_failure="n7: out of memory")
    assert judge(evidence).outcome == expected


def test_failures_fail_at_once_and_are_told() -> None:
    small = judge(ring(10, switched=0, failed=1, first_failure="n7: out of memory"))
    assert (small.outcome, small.reason) == ("fail", "n7: out of memory")
    large = judge(ring(100, switched=3, failed=6, first_failure="n7: out of memory"))
    assert large.reason == "6 nodes failed and 5 may; n7: out of memory"
    assert judge(ring(100, switched=95, failed=5)).outcome == "pass"


@given(st.integers(1, 3000), st.integers(0, 3000))
def test_the_share_of_failures_is_that_of_the_ring(nodes: int, failed: int) -> None:
    failed = min(failed, nodes)
    verdict = judge(ring(nodes, switched=nodes - failed, failed=failed, first_failure="n1: x"))
    assert (verdict.outcome == "fail") == (failed > nodes * 5 // 100)


def test_the_quorum_is_of_the_online_nodes_that_were_told() -> None:
    assert judge(ring(10, switched=8)).outcome == "inconclusive"
    assert judge(ring(10, switched=9)).outcome == "pass"
    batch = ring(100, touched=10, touched_online=10, switched=10)
    assert judge(batch).reason == "10 of 10 nodes serve it"
    assert judge(ring(10, online=2, touched_online=2, switched=2)).outcome == "pass"


def test_nodes_that_failed_and_went_are_not_of_the_quorum() -> None:
    evidence = ring(100, online=20, touched_online=20, switched=14, failed=5)
    assert judge(evidence).outcome == "pass"
    assert judge(replace(evidence, failed_away=5)).outcome == "inconclusive"


def test_no_node_to_ask_is_not_known_yet() -> None:
    away = judge(ring(3, online=0, touched_online=0, switched=0, staged=0))
    assert (away.outcome, away.reason) == ("inconclusive", "no node that shall serve it is online, after 35 s")
    assert judge(RingEvidence()).outcome == "inconclusive"
    # Failures within what may fail are no pass either, if nobody serves it.
    assert judge(ring(40, online=2, touched_online=2, switched=0, failed=2)).outcome == "inconclusive"


def test_lost_nodes_never_fail_a_ring_and_keep_it_waiting() -> None:
    lost = judge(ring(10, online=8, touched_online=8, switched=8, lost=2))
    assert (lost.outcome, lost.reason) == ("inconclusive", "8 of 10 nodes serve it, 2 were lost with it, after 35 s")
    assert judge(ring(10, online=9, touched_online=9, switched=9, lost=1)).outcome == "pass"


def test_what_was_heard_in_part_passes_nothing_and_fails_still() -> None:
    part = judge(ring(complete=False))
    assert (part.outcome, part.reason) == ("inconclusive", "the broker did not tell all that it keeps, after 35 s")
    assert judge(ring(failed=1, complete=False)).outcome == "fail"


ERRORS = [
    (Tally(answered=20, failed=9), Tally(), "inconclusive", "pass"),  # too few say nothing
    (Tally(answered=500, failed=1), Tally(), "pass", "pass"),
    (Tally(answered=100, failed=100), Tally(), "fail", "fail"),
    (Tally(answered=70, failed=30), Tally(), "fail", "fail"),
    (Tally(answered=46, failed=4), Tally(), "inconclusive", "inconclusive"),  # looks too high
    (Tally(answered=48, failed=2), Tally(), "inconclusive", "pass"),
    (Tally(answered=350, failed=150), Tally(answered=350, failed=150), "inconclusive", "pass"),  # no worse than before
    (Tally(answered=350, failed=150), Tally(answered=14, failed=6), "fail", "fail"),  # too few before
    (Tally(answered=350, failed=150), Tally(answered=1000), "fail", "fail"),
]


@pytest.mark.parametrize(("now", "before", "check", "whole"), ERRORS)
def test_errors(now: Tally, before: Tally, check: str, whole: str) -> None:
    verdict = judge(ring(release=now, former=before))
    assert (outcomes(verdict)["errors"], verdict.outcome) == (check, whole)
    assert "errors" not in outcomes(judge(ring(release=now, former=before), max_error_rate=None))


def audits(audited: int, agreed: int) -> Tally:
    return Tally(audited=audited, agreed=agreed)


ACCURACY = [
    (audits(10, 0), audits(400, 390), "inconclusive", "pass", "inconclusive"),
    (audits(400, 390), audits(10, 10), "inconclusive", "pass", "inconclusive"),
    (audits(400, 390), audits(400, 390), "pass", "pass", "pass"),
    (audits(400, 100), audits(400, 390), "fail", "fail", "fail"),
    (audits(60, 6), audits(200, 190), "fail", "fail", "fail"),
    (audits(40, 38), audits(400, 390), "inconclusive", "pass", "inconclusive"),
    (audits(40, 34), audits(400, 390), "inconclusive", "inconclusive", "inconclusive"),  # looks too low
    (audits(400, 100), audits(400, 100), "pass", "pass", "pass"),
]


@pytest.mark.parametrize(("now", "before", "check", "whole", "required"), ACCURACY)
def test_audited_accuracy(now: Tally, before: Tally, check: str, whole: str, required: str) -> None:
    evidence = ring(release=now, former=before)
    assert (outcomes(judge(evidence))["accuracy"], judge(evidence).outcome) == (check, whole)
    assert judge(evidence, require_accuracy=True).outcome == required
    assert "accuracy" not in outcomes(judge(evidence, max_accuracy_drop=None))


def test_a_release_that_is_wrong_in_the_field_is_told_in_words() -> None:
    verdict = judge(ring(release=audits(60, 6), former=audits(200, 190)))
    assert verdict.reason == "audited accuracy 10.0% of 60 (at most 30.2%; before 95.0%, limit -10.0%)"


@pytest.mark.parametrize(
    ("nodes", "timed", "slow", "expected"),
    [(10, 0, 0, "inconclusive"), (10, 10, 0, "pass"), (10, 10, 1, "fail"), (100, 60, 5, "pass"), (100, 60, 6, "fail")],
)
def test_latency(nodes: int, timed: int, slow: int, expected: str) -> None:
    verdict = judge(ring(nodes, timed=timed, slow=slow), max_latency_ratio=2.0)
    assert outcomes(verdict)["latency"] == expected
    assert verdict.outcome == ("fail" if expected == "fail" else "pass")
    assert "latency" not in outcomes(judge(ring(nodes, timed=timed, slow=slow)))


@pytest.mark.parametrize(
    ("now", "before", "check", "whole"),
    [
        (Tally(histogram=STEEP), Tally(histogram=FLAT), "fail", "fail"),
        (Tally(histogram=(4000,) * 10), Tally(histogram=(4000,) * 10), "pass", "pass"),
        (Tally(histogram=(4,) * 10), Tally(histogram=(4,) * 10), "inconclusive", "pass"),
        (Tally(histogram=(4,) * 10), Tally(histogram=(8,) * 5 + (0,) * 5), "inconclusive", "inconclusive"),
        (Tally(histogram=(1,) * 10), Tally(histogram=STEEP), "inconclusive", "pass"),
    ],
)
def test_confidences(now: Tally, before: Tally, check: str, whole: str) -> None:
    evidence = ring(release=now, former=before)
    verdict = judge(evidence, max_confidence_shift=0.3)
    assert (outcomes(verdict)["confidence"], verdict.outcome) == (check, whole)
    assert "confidence" not in outcomes(judge(evidence))


def test_a_harmless_release_is_hardly_ever_failed_however_often_one_looks() -> None:
    """2,000 rings whose nodes fail exactly as many requests as they may; a look after each twenty."""
    drawn = np.random.default_rng(3).binomial(20, 0.2, size=(2000, 60)).cumsum(axis=1)
    limits, seen = Thresholds(max_error_rate=0.2), dict[Tally, str]()
    failed = 0
    for run in drawn:
        looks = [Tally(answered=20 * n - int(bad), failed=int(bad)) for n, bad in enumerate(run, 1)]
        for now in looks:
            if now not in seen:
                seen[now] = judge_ring(ring(release=now), limits, timedelta()).outcome
        failed += any(seen[now] == "fail" for now in looks)
    assert 0 < failed / len(drawn) <= ALPHA / 3


def test_a_release_as_good_as_the_former_is_not_failed_for_what_the_former_had_by_chance() -> None:
    generator, failed = np.random.default_rng(4), 0
    for _ in range(300):
        now, before = (audits(100, int(generator.binomial(100, 0.7))) for _ in range(2))
        failed += judge(ring(release=now, former=before), max_accuracy_drop=0.0).outcome == "fail"
    assert failed <= 300 * ALPHA / 3


def test_a_release_that_is_much_worse_is_found_soon() -> None:
    generator, found = np.random.default_rng(5), 0
    before = Tally(answered=1000, failed=5, audited=300, agreed=285)
    for _ in range(200):
        now = Tally(audited=80, agreed=int(generator.binomial(80, 0.5)))
        found += judge(ring(release=now, former=before)).outcome == "fail"
    assert found >= 190
