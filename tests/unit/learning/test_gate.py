"""The gate promotes what is surely better, and nothing else."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeloop.learning.gate import MIN_SLICE, Decision, decide, score
from edgeloop.samples.judging import Gate

CONFIG = Gate(min_samples=30, resamples=400)


def config(**changes: Any) -> Gate:
    return Gate.model_validate(CONFIG.model_dump() | changes)


def labels(n: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).integers(0, 4, n).astype(float)


def wrong(truth: Any, count: int, start: int = 0) -> Any:
    """The answers of a model that is right but for ``count`` samples from ``start`` on."""
    found = truth.copy()
    found[start : start + count] += 1
    return found


def judge(candidate: Any, champion: Any, truth: Any, **changes: Any) -> Decision:
    arguments: dict[str, Any] = {"config": CONFIG, "metric": "accuracy", "slices": {}} | changes
    return decide(truth=truth, candidate=candidate, champion=champion, **arguments)


def masks(n: int, old: int) -> dict[str, Any]:
    """The first ``old`` of ``n`` samples are old."""
    mask = np.arange(n) < old
    return {"old": mask, "new": ~mask}


TRUTH = labels(200)


def test_clearly_better_passes() -> None:
    decision = judge(wrong(TRUTH, 10), wrong(TRUTH, 60), TRUTH)
    assert decision.verdict == "pass"
    assert not decision.harmful
    assert (decision.candidate, decision.champion) == (0.95, 0.7)
    assert decision.gain == pytest.approx(0.25)
    assert decision.gain_low is not None
    assert decision.gain_high is not None
    assert 0 < decision.gain_low < 0.25 < decision.gain_high
    assert "better than the champion: gain +0.250, 99% sure of at least" in decision.reason


def test_clearly_worse_is_harmful() -> None:
    decision = judge(wrong(TRUTH, 60), wrong(TRUTH, 10), TRUTH)
    assert (decision.verdict, decision.harmful) == ("fail", True)
    assert decision.reason.startswith("worse than the champion")


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 200), st.integers(30, 200), st.sampled_from(["accuracy", "r2"]), st.integers(0, 99))
def test_the_same_model_never_passes(errors: int, n: int, metric: str, seed: int) -> None:
    truth = labels(n, seed)
    decision = judge(wrong(truth, errors), wrong(truth, errors), truth, metric=metric, seed=seed)
    assert (decision.verdict, decision.harmful, decision.gain) == ("fail", False, 0)


@settings(max_examples=40, deadline=None)
@given(st.integers(30, 150), st.integers(0, 150), st.integers(0, 150), st.integers(0, 5), st.floats(0, 0.2))
def test_what_passes_is_better_by_more_than_the_margin(
    n: int, errors: int, former: int, seed: int, margin: float
) -> None:
    truth = labels(n, seed)
    candidate, champion = wrong(truth, min(errors, n)), wrong(truth, min(former, n))
    decision = judge(candidate, champion, truth, seed=seed, config=config(margin=margin, resamples=200))
    gain = (champion != truth).mean() - (candidate != truth).mean()
    assert decision.gain == pytest.approx(gain)
    if decision.verdict == "pass":
        assert gain > margin
        assert not decision.harmful
    if decision.harmful:
        assert gain < 0


@pytest.mark.parametrize("n", [0, 1, 29])
def test_too_few_samples_decide_nothing(n: int) -> None:
    decision = judge(TRUTH[:n], wrong(TRUTH[:n], n), TRUTH[:n])
    assert (decision.verdict, decision.harmful, decision.samples) == ("inconclusive", False, n)
    assert f"{n} gate samples with trusted labels are too few, 30 are needed" in decision.reason


def test_just_enough_samples_decide() -> None:
    assert judge(TRUTH[:30], wrong(TRUTH[:30], 20), TRUTH[:30]).verdict == "pass"


def test_a_small_gain_is_not_sure() -> None:
    decision = judge(wrong(TRUTH, 59), wrong(TRUTH, 60, 40), TRUTH)
    assert (decision.verdict, decision.harmful) == ("fail", False)
    assert decision.reason.startswith("not surely better than the champion")


def test_the_margin_must_be_cleared() -> None:
    candidate, champion = wrong(TRUTH, 10), wrong(TRUTH, 60)
    assert judge(candidate, champion, TRUTH, config=config(margin=0.15)).verdict == "pass"
    assert judge(candidate, champion, TRUTH, config=config(margin=0.24)).verdict == "fail"


def test_an_old_slice_that_drops_is_a_veto_however_large_the_gain() -> None:
    old, n = 20, 200
    candidate = wrong(TRUTH, 3)
    champion = wrong(TRUTH, n - old, old)
    decision = judge(candidate, champion, TRUTH, slices=masks(n, old))
    assert decision.gain is not None
    assert decision.gain > 0.8
    assert (decision.verdict, decision.harmful) == ("fail", True)
    assert (
        "drops accuracy by 0.150 on the 20 old gate samples (1.000 to 0.850), 0.05 is allowed; 90% sure"
        in decision.reason
    )


@pytest.mark.parametrize(
    ("slices", "changes", "verdict"),
    [
        (masks(200, 20), {"config": config(slice_margin=0.15)}, "pass"),
        (masks(200, 20), {"config": config(slice_margin=0.14)}, "fail"),
        (masks(200, 20), {"config": config(veto={"old": {"margin": 0.15}})}, "pass"),
        (masks(200, 20), {"config": config(veto={"old": None})}, "pass"),
        (masks(200, 20), {"config": config(veto={"old": None, "new": {}})}, "pass"),
        (masks(200, 20), {"config": config(veto={"old": {"min_samples": 20}})}, "fail"),
        (masks(200, MIN_SLICE - 1), {}, "pass"),
        (masks(200, MIN_SLICE), {}, "fail"),
        ({"audit": np.arange(200) < 20}, {}, "pass"),
        ({"audit": np.arange(200) < 20}, {"veto": frozenset({"audit"})}, "fail"),
        ({"audit": np.arange(200) < 20}, {"config": config(veto={"audit": {}})}, "fail"),
        (masks(200, 20), {"veto": frozenset()}, "pass"),
        (masks(200, 0), {}, "pass"),
    ],
    ids=[
        "allowed",
        "just not allowed",
        "its own margin",
        "veto taken away",
        "veto moved",
        "enough samples",
        "too small to veto",
        "just large enough",
        "not a veto",
        "a veto by name",
        "a veto",
        "no veto",
        "empty",
    ],
)
def test_which_slices_may_refuse(slices: Any, changes: Any, verdict: str) -> None:
    candidate = wrong(TRUTH, 3)
    champion = wrong(TRUTH, 170, 30)
    assert judge(candidate, champion, TRUTH, slices=slices, **changes).verdict == verdict


def test_slices_are_reported_whatever_the_verdict() -> None:
    decision = judge(wrong(TRUTH, 10), wrong(TRUTH, 60), TRUTH, slices=masks(200, 50))
    assert {name: (s.samples, s.candidate, s.champion) for name, s in decision.slices.items()} == {
        "old": (50, 0.8, 0.0),
        "new": (150, 1.0, pytest.approx(140 / 150)),
    }


def test_a_release_over_budget_does_not_pass() -> None:
    budget = config(max_release_bytes=1000)
    candidate, champion = wrong(TRUTH, 10), wrong(TRUTH, 60)
    assert judge(candidate, champion, TRUTH, config=budget, release_bytes=1000).verdict == "pass"
    decision = judge(candidate, champion, TRUTH, config=budget, release_bytes=1001)
    assert (decision.verdict, decision.harmful) == ("fail", False)
    assert decision.reason == "release of 1001 bytes is over the budget of 1000"
    assert judge(candidate, None, TRUTH, config=budget, release_bytes=1001).verdict == "fail"


def test_a_first_model_passes_if_it_is_good_enough() -> None:
    decision = judge(wrong(TRUTH, 60), None, TRUTH)
    assert (decision.verdict, decision.reason) == ("pass", "first model, accuracy 0.700")
    assert (decision.champion, decision.gain) == (None, None)
    assert judge(wrong(TRUTH, 60), None, TRUTH, config=config(bootstrap_minimum=0.7)).verdict == "pass"
    refused = judge(wrong(TRUTH, 60), None, TRUTH, config=config(bootstrap_minimum=0.71))
    assert (refused.verdict, refused.harmful) == ("fail", False)
    assert refused.reason == "first model has accuracy 0.700, 0.71 is needed"


@pytest.mark.parametrize("champion", [None, wrong(TRUTH, 60)], ids=["first", "later"])
def test_a_model_that_answers_no_number_never_passes(champion: Any) -> None:
    answers = TRUTH.copy()
    answers[3] = np.nan
    decision = judge(answers, champion, TRUTH, metric="r2", config=config(bootstrap_minimum=0.1))
    assert decision.verdict == "fail"


def test_the_verdict_is_repeatable() -> None:
    candidate, champion = wrong(TRUTH, 40), wrong(TRUTH, 60)
    one = judge(candidate, champion, TRUTH, seed=5)
    assert judge(candidate, champion, TRUTH, seed=5) == one
    assert judge(candidate, champion, TRUTH, seed=6).gain_low != one.gain_low


def test_numbers_are_compared_by_r2() -> None:
    rng = np.random.default_rng(1)
    truth = rng.normal(5, 1, 150)
    near, far = truth + rng.normal(0, 0.3, 150), truth + rng.normal(0, 0.9, 150)
    decision = judge(near, far, truth, metric="r2")
    assert decision.verdict == "pass"
    assert decision.candidate == pytest.approx(1 - ((truth - near) ** 2).sum() / ((truth - truth.mean()) ** 2).sum())
    assert judge(far, near, truth, metric="r2").harmful
    assert score("r2", truth, np.full(150, truth.mean())) == pytest.approx(0)
    assert score("r2", truth, truth) == 1


@pytest.mark.parametrize(
    ("lost", "veto", "verdict"),
    [
        (2, {}, "pass"),
        (2, {"large": 0.09}, "fail"),
        (2, {"confidence": 0.7}, "fail"),
        (3, {}, "fail"),
        (3, {"confidence": 0.99}, "fail"),
        (3, {"confidence": 0.99, "large": 0.2}, "pass"),
    ],
    ids=["neither", "large", "less sure will do", "sure", "large though unsure", "must be surer"],
)
def test_a_drop_refuses_if_it_is_sure_or_large(lost: int, veto: dict[str, float], verdict: str) -> None:
    """Of 20 old samples 2 or 3 are lost, a drop of 0.10 or 0.15 where 0.05 is allowed."""
    decision = judge(
        wrong(TRUTH, lost),
        wrong(TRUTH, 170, 30),
        TRUTH,
        slices=masks(200, 20),
        config=config(veto={"old": veto}, resamples=2000),
    )
    assert decision.verdict == verdict
    assert decision.harmful is (verdict == "fail")


def test_one_far_off_number_is_no_veto() -> None:
    """On 40 old values one outlier takes half of the R², and chance could have put it there."""
    rng = np.random.default_rng(4)
    truth = rng.normal(0, 1, 200)
    champion, candidate = truth + rng.normal(0, 1, 200), truth + rng.normal(0, 0.2, 200)
    candidate[0] = truth[0] + 12
    decision = judge(candidate, champion, truth, metric="r2", slices=masks(200, 40))
    old = decision.slices["old"]
    assert old.gain is not None
    assert old.gain < -0.05
    assert not decision.harmful
    assert judge(champion, candidate * 0 + truth, truth, metric="r2", slices=masks(200, 40)).harmful


def test_a_slice_that_must_have_samples_and_has_too_few_decides_nothing() -> None:
    need = config(veto={"old": {"min_samples": 21}})
    better, worse = wrong(TRUTH, 10, 100), wrong(TRUTH, 60, 100)
    decision = judge(better, worse, TRUTH, slices=masks(200, 20), config=need)
    assert (decision.verdict, decision.harmful) == ("inconclusive", False)
    assert decision.reason.startswith("20 old gate samples are too few, 21 are needed: label more (better than")
    assert judge(better, worse, TRUTH, slices=masks(200, 21), config=need).verdict == "pass"
    assert judge(better, worse, TRUTH, slices={}, config=need).verdict == "inconclusive"
    assert judge(worse, better, TRUTH, slices=masks(200, 20), config=need).verdict == "fail"


def test_a_gain_that_chance_shows_too_often_does_not_pass() -> None:
    """Five of thirty better and none worse: the bootstrap is sure, but equal models do that once in 32 times."""
    truth = TRUTH[:30]
    decision = judge(truth, wrong(truth, 5), truth, config=config(resamples=20_000))
    assert decision.gain_low is not None
    assert decision.gain_low > 0
    assert decision.p == pytest.approx(1 / 32)
    assert (decision.verdict, decision.harmful) == ("fail", False)
    assert "but chance shows as much in 3.1% of cases" in decision.reason
    assert judge(truth, wrong(truth, 7), truth, config=config(resamples=20_000)).verdict == "pass"
    bootstrap_alone = config(resamples=20_000, exact=False)
    assert judge(truth, wrong(truth, 5), truth, config=bootstrap_alone).verdict == "pass"
    assert judge(truth, wrong(truth, 1), truth, config=bootstrap_alone).verdict == "fail"


def test_worn_samples_say_nothing_but_what_does_harm() -> None:
    better, worse = wrong(TRUTH, 10), wrong(TRUTH, 60)
    few = config(max_reuse=3)
    worn = np.ones(len(TRUTH), dtype=bool)
    spent = judge(better, worse, TRUTH, config=few, worn=worn)
    assert (spent.verdict, spent.harmful, spent.samples, spent.worn) == ("inconclusive", False, 0, len(TRUTH))
    assert spent.reason.startswith(f"{len(TRUTH)} gate samples have made 3 decisions each and are retired")
    assert spent.reason.endswith("label fresh audit samples")
    assert (spent.candidate, spent.gain, spent.p, spent.mcnemar, spent.slices) == (None, None, None, None, {})
    assert judge(better, None, TRUTH, config=few, worn=worn).verdict == "inconclusive"
    assert judge(better, better, TRUTH, config=few, worn=worn).verdict == "inconclusive"
    harmful = judge(worse, better, TRUTH, config=few, worn=worn)
    assert (harmful.verdict, harmful.harmful, harmful.samples) == ("fail", True, len(TRUTH))


def test_a_gain_on_worn_samples_alone_promotes_nothing() -> None:
    """The worn half is all gain, the fresh half none."""
    half = len(TRUTH) // 2
    worn = np.arange(len(TRUTH)) < half
    champion = TRUTH.copy()
    champion[: half // 2] += 1
    whole = judge(TRUTH, champion, TRUTH)
    assert whole.verdict == "pass"
    fresh = judge(TRUTH, champion, TRUTH, worn=worn)
    assert (fresh.verdict, fresh.gain, fresh.samples, fresh.worn) == ("fail", 0, len(TRUTH) - half, half)


def test_a_slice_of_worn_samples_may_refuse() -> None:
    half = len(TRUTH) // 2
    old = np.arange(len(TRUTH)) < half
    candidate, champion = TRUTH.copy(), TRUTH.copy()
    candidate[: half // 3] += 1
    champion[half:] += 1
    decision = judge(candidate, champion, TRUTH, slices={"old": old}, worn=old)
    assert (decision.verdict, decision.harmful) == ("fail", True)
    assert "gate samples" in decision.reason


def test_a_slice_of_equal_right_answers_is_measured_by_the_spread_of_all() -> None:
    """A tank that was empty all week: a thousandth of error there is no collapse of R²."""
    truth = np.random.default_rng(0).normal(0, 10, 200)
    empty = np.arange(200) < 40
    truth[empty] = 0.0
    champion = truth + np.where(empty, 0.0, 3.0)
    candidate = truth + np.where(empty, 0.001, 0.1)
    decision = judge(candidate, champion, truth, metric="r2", slices={"old": empty, "new": ~empty})
    assert decision.verdict == "pass", decision.reason
    old = decision.slices["old"]
    assert old.gain == pytest.approx(-1e-6 / truth.var())
    assert old.champion is not None
    assert old.gain == pytest.approx(old.candidate - old.champion)
