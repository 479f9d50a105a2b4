"""The cap, the turns and the two witnesses of a pseudo-label, for any numbers."""

from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from edgeloop.learning.pseudo.propose import confirmed, in_turns, most_pseudo
from edgeloop.samples.labelling import Pseudo


@given(st.integers(0, 100_000), st.floats(0, 0.9))
def test_pseudo_labels_are_never_more_than_their_share_of_a_lesson(anchors: int, share: float) -> None:
    most = most_pseudo(anchors, share)
    assert most >= 0
    assert most <= share * (anchors + most)
    assert most + 1 > (share - 1e-9) * (anchors + most + 1), "and no fewer than may be"


@given(st.lists(st.integers(0, 3), max_size=40), st.integers(0, 50), st.integers(0, 5))
def test_classes_take_turns(classes: list[int], most: int, seed: int) -> None:
    chosen = in_turns(classes, most, np.random.default_rng(seed))
    assert chosen == sorted(set(chosen))
    assert len(chosen) == min(most, len(classes))
    taken, there = Counter(classes[at] for at in chosen), Counter(classes)
    greatest = max(taken.values(), default=0)
    for one, count in there.items():
        assert taken[one] >= min(count, greatest - 1), "no class gets more while another has some left"


@st.composite
def rooms(draw: st.DrawFn) -> tuple[np.random.Generator, int, int, Pseudo]:
    rng = np.random.default_rng(draw(st.integers(0, 999)))
    rules = Pseudo(enabled=True, confidence=draw(st.sampled_from([0.6, 0.8, 0.95])), neighbours=draw(st.integers(1, 5)))
    return rng, draw(st.integers(0, 30)), draw(st.integers(0, 12)), rules


@given(rooms())
def test_a_pseudo_label_has_two_witnesses(room: tuple[np.random.Generator, int, int, Pseudo]) -> None:
    rng, n_open, n_known, rules = room
    points, anchors = (rng.normal(size=(n, 2)).astype(np.float32) for n in (n_open, n_known))
    classes = rng.integers(0, 2, n_known)
    sure = rng.uniform(0.5, 1, n_open)
    probabilities = np.column_stack([sure, 1 - sure])
    fine = confirmed(probabilities, points, anchors, classes, rules)
    assert fine.shape == (n_open,)
    for at in range(n_open):
        near = np.argsort(np.linalg.norm(anchors - points[at], axis=1), kind="stable")[: rules.neighbours]
        agree = n_known > 0 and bool((classes[near] == 0).all())
        assert fine[at] == (sure[at] >= rules.confidence and agree)


def test_a_label_that_the_model_does_not_know_confirms_nothing() -> None:
    point = np.zeros((1, 2), np.float32)
    assert not confirmed(np.array([[0.99, 0.01]]), point, point, np.array([-1]), Pseudo())[0]
