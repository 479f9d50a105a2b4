"""The held-out part of the pool: whole groups, for ever, never of gate or test, and no label without lessons."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeloop.learning.held_out import FEWEST, held_out
from edgeloop.learning.leak import Leak
from edgeloop.samples.splits import split_of

POOL = [name for name in (f"group-{n}" for n in range(1000)) if split_of(name, "looker") == "pool"]


def test_about_the_share_is_held_out() -> None:
    mask = held_out("looker", POOL, ["a", "b"] * (len(POOL) // 2) + ["a"] * (len(POOL) % 2), 0.2)
    assert mask.sum() / len(POOL) == pytest.approx(0.2, abs=0.05)


def test_a_group_lies_on_one_side_and_stays_there() -> None:
    groups = POOL[:200] * 3
    truth = ["a", "b", "c"] * 200
    mask = held_out("looker", groups, truth, 0.2)
    sides = {(group, bool(side)) for group, side in zip(groups, mask, strict=True)}
    assert len(sides) == 200
    more = held_out("looker", groups + POOL[200:], truth + ["a"] * len(POOL[200:]), 0.2)
    assert np.array_equal(mask, more[: len(groups)]), "newcomers move nobody"


@pytest.mark.parametrize("split", ["gate", "test"])
def test_what_judges_models_trains_none(split: str) -> None:
    stranger = next(name for name in (f"group-{n}" for n in range(1000)) if split_of(name, "looker") == split)
    with pytest.raises(Leak, match=f"1 groups of looker, {stranger} among them.*train on the pool alone"):
        held_out("looker", [*POOL, stranger], ["a"] * (len(POOL) + 1), 0.1)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.sampled_from("abcdefgh"), min_size=300, max_size=300), st.floats(0, 0.5), st.integers(1, 60))
def test_every_label_keeps_a_sample_to_learn_from(truth: list[str], share: float, groups: int) -> None:
    mask = held_out("looker", [POOL[n % groups] for n in range(300)], truth, share)
    assert {label for label, aside in zip(truth, mask, strict=True) if not aside} == set(truth)
    assert mask.sum() == 0 or mask.sum() >= FEWEST


def test_few_samples_are_all_learned_from() -> None:
    assert held_out("looker", POOL[:60], ["a", "b"] * 30, 0.1).sum() == 0
    assert held_out("looker", POOL, ["a"] * len(POOL), 0.0).sum() == 0
