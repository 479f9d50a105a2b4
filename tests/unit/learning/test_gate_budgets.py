"""What a candidate costs is measured fairly and held against its budgets."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgeloop.clients.model_types import Answer
from edgeloop.learning.gate import decide
from edgeloop.learning.gate_budgets import (
    LEAST_TIMED,
    MOST_TIMED,
    Agreement,
    Latency,
    agreement,
    budget_fault,
    measure_latency,
)
from edgeloop.samples.judging import Gate

TRUTH = np.zeros(100)


class Slow:
    """A model that takes its time, on a clock that only models move."""

    labels: tuple[str, ...] | None = None
    backbone_digest: str | None = None

    def __init__(self, clock: list[float], seconds: float) -> None:
        self.clock, self.seconds, self.asked = clock, seconds, 0

    def predict(self, payload: bytes) -> Answer:
        self.asked += 1
        self.clock[0] += self.seconds * (100 if self.asked == 1 else 1)
        return Answer("1", None, None, None)


def measured(candidate: float, champion: float | None, samples: int = 20) -> Latency | None:
    clock = [0.0]
    other = None if champion is None else Slow(clock, champion)
    found = measure_latency(Slow(clock, candidate), other, [b"x"] * samples, lambda: clock[0])
    assert found is None or found.answers == ["1"] * found.latency.samples
    return None if found is None else found.latency


def test_the_median_of_each_is_measured_without_its_first_answer() -> None:
    found = measured(0.004, 0.002)
    assert found is not None
    assert found.samples == 20
    assert [found.candidate_ms, found.champion_ms] == pytest.approx([4, 2])
    once = measured(0.004, 0.002, 1)
    assert once is not None
    assert [once.candidate_ms, once.champion_ms] == pytest.approx([4, 2])
    assert found.ratio == pytest.approx(2)


def test_a_first_model_has_no_ratio() -> None:
    found = measured(0.004, None)
    assert found is not None
    assert (found.champion_ms, found.ratio) == (None, None)


def test_only_so_many_samples_are_timed_and_none_is_no_figure() -> None:
    found = measured(0.001, 0.001, MOST_TIMED + 5)
    assert found is not None
    assert found.samples == MOST_TIMED
    assert measured(0.001, 0.001, 0) is None


def test_a_machine_that_grows_slow_slows_both() -> None:
    """The models take turns: a clock that runs ever faster leaves their ratio near one."""
    clock = [1.0]

    class Growing(Slow):
        def predict(self, payload: bytes) -> Answer:
            clock[0] *= 1.2
            return Answer("1", None, None, None)

    found = measure_latency(Growing(clock, 0), Growing(clock, 0), [b"x"] * 40, lambda: clock[0])
    assert found is not None
    assert found.latency.ratio == pytest.approx(1, abs=0.1)


def timed(candidate: float, champion: float | None = 1.0, samples: int = LEAST_TIMED) -> Latency:
    return Latency(samples=samples, candidate_ms=candidate, champion_ms=champion)


@pytest.mark.parametrize(
    ("latency", "changes", "fault"),
    [
        (timed(3.0), {}, None),
        (timed(3.01), {}, "an answer takes 3.01 ms, 3.01 times the champion's 1 ms, 3 times is allowed"),
        (timed(3.01), {"max_latency_ratio": None}, None),
        (timed(3.01, samples=LEAST_TIMED - 1), {}, None),
        (timed(900, None), {}, None),
        (timed(9, None), {"max_latency_ms": 9}, None),
        (timed(9.1, None), {"max_latency_ms": 9}, "an answer takes 9.1 ms here, 9 ms is allowed"),
        (None, {"max_latency_ms": 9}, None),
    ],
)
def test_the_latency_budgets(latency: Latency | None, changes: dict[str, Any], fault: str | None) -> None:
    config = Gate.model_validate(changes)
    assert budget_fault(config, None, latency, None) == fault
    decision = decide(config, "accuracy", TRUTH, TRUTH, TRUTH + 1, {}, latency=latency)
    assert (decision.verdict, decision.latency) == ("fail" if fault else "pass", latency)
    assert not decision.harmful
    if fault:
        assert decision.reason == fault


def test_labels_must_agree_exactly_and_numbers_nearly() -> None:
    trained = np.linspace(0, 10, 200)
    assert agreement("r2", trained + 0.001 * trained.std(), trained) == Agreement(samples=200, share=1)
    moved = trained.copy()
    moved[:3] += 0.02 * trained.std()
    assert agreement("r2", moved, trained) == Agreement(samples=200, share=0.985)
    assert agreement("accuracy", moved, trained) == Agreement(samples=200, share=0.985)
    broken = trained.copy()
    broken[0] = np.nan
    assert agreement("r2", broken, trained) == Agreement(samples=200, share=0.995)
    assert agreement("r2", trained[:0], trained[:0]) is None


def test_an_export_that_is_another_model_fails() -> None:
    off = Agreement(samples=200, share=0.985)
    decision = decide(Gate(), "accuracy", TRUTH, TRUTH, TRUTH + 1, {}, agreed=off)
    assert (decision.verdict, decision.harmful, decision.agreement) == ("fail", False, off)
    assert decision.reason.startswith("the exported model answers as the trained one on 98.5% of 200 gate samples")
    assert decision.reason.endswith("99.0% is needed: export it otherwise")
    assert decide(Gate(min_agreement=0.98), "accuracy", TRUTH, TRUTH, TRUTH + 1, {}, agreed=off).verdict == "pass"


def test_one_sample_may_always_differ() -> None:
    """Of thirty samples one is more than a hundredth: an answer on the edge between two labels says nothing."""
    one, two = (agreement("accuracy", np.r_[np.ones(n), np.zeros(30 - n)], np.zeros(30)) for n in (1, 2))
    assert budget_fault(Gate(), None, None, one) is None
    assert "on 93.3% of 30 gate samples" in str(budget_fault(Gate(), None, None, two))


def test_too_few_resamples_for_the_confidence_are_refused() -> None:
    with pytest.raises(ValueError, match=r"a confidence of 0.999 needs resamples of at least 1000"):
        Gate(confidence=0.999, resamples=999)
    assert Gate(confidence=0.999, resamples=1000).resamples == 1000
    assert Gate(resamples=100).confidence == 0.99


def test_a_champion_that_answers_no_number_is_not_compared_with() -> None:
    truth = np.arange(100.0)
    champion = truth.copy()
    champion[7] = np.nan
    decision = decide(Gate(), "r2", truth, truth, champion, {})
    assert (decision.verdict, decision.harmful, decision.gain) == ("inconclusive", False, None)
    assert "the champion's r2 is nan, not a number" in decision.reason
