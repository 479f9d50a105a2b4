"""Each rule holds where its formula says, and its value grows with how far beyond its limit an answer is."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from edgeloop.clients.models import Answer
from edgeloop.edge.selection.informativeness import entropy, margin, value_of
from edgeloop.samples.selection import Rule

RULES: TypeAdapter[Rule] = TypeAdapter(Rule)


def value(
    rule: dict[str, Any],
    probabilities: tuple[float, ...] | None = None,
    *,
    boxes: tuple[float, ...] | None = None,
    distance: float | None = None,
) -> float | None:
    confidence = max(probabilities) if probabilities else None
    given_answer = Answer("a", confidence, probabilities, None, None, boxes)
    return value_of(RULES.validate_python(rule), given_answer, lambda: distance)


def test_confidence_keeps_what_the_model_is_sure_of() -> None:
    rule = {"rule": "confidence", "above": 0.9}
    assert value(rule, (0.95, 0.05)) == pytest.approx(0.5)
    assert value(rule, (0.9, 0.1)) is None
    assert value(rule, (1.0, 0.0)) == 1.0


def test_threshold_keeps_what_it_is_unsure_of() -> None:
    rule = {"rule": "threshold", "below": 0.8}
    assert value(rule, (0.6, 0.4)) == pytest.approx(0.25)
    assert value(rule, (0.8, 0.2)) is None


def test_margin_is_the_best_less_the_second_best() -> None:
    assert margin((0.2, 0.5, 0.3)) == pytest.approx(0.2)
    assert value({"rule": "margin", "below": 0.4}, (0.2, 0.5, 0.3)) == pytest.approx(0.5)
    assert value({"rule": "margin", "below": 0.2}, (0.2, 0.6, 0.2)) is None
    assert margin((1.0,)) is None


def test_entropy_is_one_where_all_are_alike_and_zero_where_one_is_sure() -> None:
    assert entropy((0.25,) * 4) == pytest.approx(1.0)
    assert entropy((1.0, 0.0, 0.0)) == 0.0
    assert entropy((0.5, 0.5, 0.0, 0.0)) == pytest.approx(0.5)
    assert entropy((1.0,)) is None
    assert value({"rule": "entropy", "above": 0.4}, (0.5, 0.5, 0.0, 0.0)) == pytest.approx(1 / 6)
    assert value({"rule": "entropy", "above": 0.5}, (1.0, 0.0)) is None


@pytest.mark.parametrize(("confidence", "holds"), [(0.88, True), (0.8899, True), (0.8901, False), (0.95, False)])
def test_cross_entropy_is_sednas_filter_with_sednas_number(confidence: float, holds: bool) -> None:
    found = value({"rule": "cross-entropy", "below": 0.5}, (confidence, 1 - confidence))
    assert (found is not None) == holds


@given(st.lists(st.floats(0.001, 1), min_size=2, max_size=8), st.floats(0.01, 0.99))
def test_cross_entropy_is_the_other_side_of_entropy(weights: list[float], limit: float) -> None:
    shares = tuple(w / sum(weights) for w in weights)
    score = 1 + sum(p * math.log(p) for p in shares) / math.log(len(shares))
    if abs(score - limit) > 1e-9:
        assert (value({"rule": "cross-entropy", "below": limit}, shares) is not None) == (score < limit)
        assert (value({"rule": "entropy", "above": 1 - limit}, shares) is not None) == (score < limit)


@pytest.mark.parametrize(
    ("boxes", "found"),
    [
        ((), 1.0),
        ((0.9, 0.8), None),
        ((0.9, 0.5), 0.0),
        ((0.9, 0.51), None),
        ((0.1, 0.2, 0.3, 0.9), 0.5),
        ((0.1,), 1.0),
        (None, None),
    ],
)
def test_ibt_is_sednas_but_nothing_found_is_hard(boxes: tuple[float, ...] | None, found: float | None) -> None:
    assert value({"rule": "ibt"}, boxes=boxes) == found


def test_ibt_has_a_threshold_for_the_image_and_one_for_boxes() -> None:
    boxes = (0.3, 0.9, 0.9, 0.9)
    assert value({"rule": "ibt", "image": 0.5, "box": 0.5}, boxes=boxes) is None
    assert value({"rule": "ibt", "image": 0.75, "box": 0.5}, boxes=boxes) == 0.0
    assert value({"rule": "ibt", "image": 0.75, "box": 0.2}, boxes=boxes) is None


def test_novelty_is_the_distance_to_what_is_known() -> None:
    rule = {"rule": "novelty", "above": 0.2}
    assert value(rule, distance=0.6) == pytest.approx(0.5)
    assert value(rule, distance=0.2) is None
    assert value(rule, distance=2.0) == 1.0
    assert value(rule, distance=None) is None
    assert value({"rule": "novelty", "above": 1.2}, distance=1.6) == pytest.approx(0.5)


ALL = [
    {"rule": "confidence", "above": 0.3},
    {"rule": "threshold", "below": 0.9},
    {"rule": "margin", "below": 0.9},
    {"rule": "entropy", "above": 0.1},
    {"rule": "cross-entropy", "below": 0.9},
]


@pytest.mark.parametrize("rule", ALL, ids=lambda r: str(r["rule"]))
def test_an_answer_without_the_measure_does_not_hold(rule: dict[str, Any]) -> None:
    assert value(rule, None) is None
    assert value(rule, (math.nan, math.nan)) is None


@pytest.mark.parametrize("rule", ALL, ids=lambda r: str(r["rule"]))
@given(st.floats(0.5, 1), st.floats(0.5, 1))
def test_values_lie_in_0_to_1_and_grow_with_the_measure(rule: dict[str, Any], one: float, other: float) -> None:
    low, high = sorted((one, other), reverse=rule["rule"] != "confidence")
    less, more = value(rule, (low, 1 - low)), value(rule, (high, 1 - high))
    assert less is None or 0 <= less <= 1
    assert less is None or (more is not None and more >= less - 1e-12)
