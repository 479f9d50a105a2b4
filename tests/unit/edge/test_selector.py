from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeloop.edge.selector import audit_draw, select
from edgeloop.samples.service import Selection

shares = st.floats(0.001, 1)
confidences = st.none() | st.floats(0, 1)
thresholds = st.none() | st.floats(0, 1)
draws = st.floats(0, 1, exclude_max=True)


@given(confidences, thresholds, shares, draws)
def test_the_draw_alone_decides_the_audit(
    confidence: float | None, below: float | None, audit: float, draw: float
) -> None:
    choice = select(confidence, Selection(audit=audit, confidence_below=below), draw)
    assert (choice.selected_by == "audit") == (draw < audit)


@given(confidences, thresholds, shares, draws)
def test_what_is_not_audited_is_sent_for_its_confidence_or_not_at_all(
    confidence: float | None, below: float | None, audit: float, draw: float
) -> None:
    choice = select(confidence, Selection(audit=audit, confidence_below=below), draw)
    unsure = confidence is not None and below is not None and confidence < below
    if draw >= audit:
        assert choice.selected_by == ("confidence" if unsure else None)
    assert choice.probability == (1.0 if unsure else audit)


@settings(max_examples=15)
@given(confidences, thresholds, st.floats(0.05, 0.95), st.integers(0, 1000))
def test_the_probability_is_how_often_a_sample_is_sent(
    confidence: float | None, below: float | None, audit: float, seed: int
) -> None:
    policy, rng, count = Selection(audit=audit, confidence_below=below), random.Random(seed), 2000
    sent = sum(select(confidence, policy, rng.random()).selected_by is not None for _ in range(count))
    probability = select(confidence, policy, 0.5).probability
    deviation = (probability * (1 - probability) / count) ** 0.5
    assert abs(sent / count - probability) <= 5 * deviation


@settings(max_examples=20)
@given(st.binary(min_size=1, max_size=64), st.floats(0.05, 0.95))
def test_the_audit_draw_is_uniform_over_samples(salt: bytes, audit: float) -> None:
    count = 2000
    hits = sum(audit_draw(salt, f"{n:064x}") < audit for n in range(count))
    assert abs(hits / count - audit) <= 5 * (audit * (1 - audit) / count) ** 0.5


def test_the_audit_draw_is_the_same_for_one_sample_and_another_for_another_node() -> None:
    draws = [audit_draw(b"one", f"{n:064x}") for n in range(500)]
    assert draws == [audit_draw(b"one", f"{n:064x}") for n in range(500)]
    others = [audit_draw(b"two", f"{n:064x}") for n in range(500)]
    both = sum(a < 0.5 and b < 0.5 for a, b in zip(draws, others, strict=True))
    assert both / 500 == pytest.approx(0.25, abs=0.1)


def test_an_estimate_over_audited_samples_is_unbiased_although_unsure_ones_are_sent_too() -> None:
    policy = Selection(audit=0.3, confidence_below=0.6)
    rng = random.Random(7)
    population = [rng.random() for _ in range(20_000)]
    chosen = [(c, select(c, policy, rng.random())) for c in population]
    audited = [c for c, choice in chosen if choice.selected_by == "audit"]
    truth = sum(population) / len(population)
    assert sum(audited) / len(audited) == pytest.approx(truth, abs=0.02)
    sent = [(c, choice.probability) for c, choice in chosen if choice.selected_by]
    weighted = sum(c / p for c, p in sent) / len(population)
    assert weighted == pytest.approx(truth, abs=0.02)
