"""Heads travel as half precision where that loses nothing, and are the same numbers when they are loaded."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray

from edgeloop.clients.model_heads import HiddenHead, LinearHead, narrowed, read_head
from edgeloop.learning.heads import placed, rounded

LABELS = ("a", "b", "c")


def linear(weights: NDArray[np.float32]) -> LinearHead:
    return LinearHead(weights, np.linspace(-1, 1, weights.shape[1]).astype(np.float32), LABELS[: weights.shape[1]])


@given(arrays(np.float32, array_shapes(min_dims=2, max_dims=2, max_side=3), elements=st.floats(width=32)))
def test_weights_come_back_as_they_were(weights: NDArray[np.float32]) -> None:
    back = read_head(linear(weights).to_bytes())
    assert isinstance(back, LinearHead) and back.weights.dtype == np.float32
    assert np.array_equal(back.weights, weights, equal_nan=True)


def test_rounded_weights_take_half_the_bytes() -> None:
    weights = np.random.default_rng(0).normal(scale=0.05, size=(2048, 3))
    whole, half = linear(weights.astype(np.float32)).to_bytes(), linear(rounded(weights)).to_bytes()
    assert len(whole) - len(half) == 2048 * 3 * 2
    assert np.abs(rounded(weights) - weights).max() <= np.abs(weights).max() * 2**-11
    features = np.random.default_rng(1).gamma(1.0, size=(500, 2048)).astype(np.float32)
    near = read_head(half).probabilities(features) - linear(weights.astype(np.float32)).probabilities(features)
    assert np.abs(near).max() < 1e-3


def test_a_hidden_head_keeps_its_second_layer_as_half_precision() -> None:
    rng = np.random.default_rng(0)
    first, bias = rng.normal(size=(8, 500)).astype(np.float32), np.zeros(500, np.float32)
    second, after = rng.normal(size=(500, 3)), np.zeros(3, np.float32)
    whole = HiddenHead(first, bias, second.astype(np.float32), after, LABELS)
    half = HiddenHead(first, bias, rounded(second), after, LABELS)
    assert len(whole.to_bytes()) - len(half.to_bytes()) == 500 * 3 * 2
    back = read_head(half.to_bytes())
    assert isinstance(back, HiddenHead) and np.array_equal(back.second, half.second)
    assert back.second.dtype == np.float32


@pytest.mark.parametrize("scale", [1e6, 1e-7])
def test_weights_out_of_range_stay_as_they_are(scale: float) -> None:
    weights = np.random.default_rng(0).normal(size=(300, 3)) * scale
    assert np.array_equal(rounded(weights), weights.astype(np.float32))
    assert narrowed(rounded(weights)).dtype == np.float32


def test_a_few_faint_inputs_and_those_that_never_speak_forbid_nothing() -> None:
    weights = np.random.default_rng(0).normal(size=(300, 3))
    weights[0], weights[1:100] = 1e-7, 0
    assert narrowed(rounded(weights)).dtype == np.float16
    weights[100:120] = 1e-7
    assert narrowed(rounded(weights)).dtype == np.float32


def test_trainers_make_such_heads() -> None:
    coef = np.random.default_rng(0).normal(size=(3, 50))
    weights, _ = placed(coef, np.zeros(3), LABELS, LABELS)
    assert narrowed(weights).dtype == np.float16
