"""The probability that is written on a sample is the one with which a simulation of the policy sends it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgeloop.edge.selection import lease
from edgeloop.edge.selection.selector import Choice
from tests.unit.edge.choosing import Chooser, Clock, answer, config

Floats = NDArray[np.float64]
COUNT = 2000
SIZES = [300, 900, 2000]


@pytest.fixture(scope="module", autouse=True)
def on_memory() -> Iterator[None]:
    """Leases cost no disk where a test counts chances, not crashes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lease, "write_durably", lambda path, data: None)
        yield


def entropy(best: Floats) -> Floats:
    """Of two labels, in [0, 1]."""
    both = np.stack([best, 1 - best])
    return np.asarray(-(both * np.log2(both)).sum(axis=0))


#: By the name of a rule: what it holds for, of the probabilities of the better label and a limit.
HOLDS: dict[str, tuple[str, Any]] = {
    "threshold": ("below", lambda best, limit: best < limit),
    "confidence": ("above", lambda best, limit: best > limit),
    "margin": ("below", lambda best, limit: 2 * best - 1 < limit),
    "entropy": ("above", lambda best, limit: entropy(best) > limit),
    "cross-entropy": ("below", lambda best, limit: 1 - entropy(best) < limit),
}
SHARES = st.floats(0.05, 0.95)
RULES = st.dictionaries(st.sampled_from(sorted(HOLDS)), SHARES, max_size=3)
#: A stream that a seed made has nothing to be shrunk to.
FEW = settings(max_examples=10, deadline=None, phases=[Phase.reuse, Phase.generate])
SEEDS = st.integers(0, 2**32 - 1)


def policy_of(audit: float, rules: dict[str, float], **more: Any) -> dict[str, Any]:
    return {"audit": audit, "informative": [{"rule": n, HOLDS[n][0]: limit} for n, limit in rules.items()], **more}


def run(policy: dict[str, Any], best: Floats, seed: int, embeddings: bool = False) -> list[Choice]:
    """What a node chooses of a stream, an input a second; ``seed`` is its secret."""
    draw, clock = np.random.default_rng(seed), Clock()
    chooser, node = Chooser(Path("unused"), seed.to_bytes(4, "big"), clock), config(**policy)
    sizes, angles = draw.choice(SIZES, len(best)), draw.uniform(0, 3, len(best))
    chosen = []
    for share, size, angle in zip(best.tolist(), sizes.tolist(), angles.tolist(), strict=True):
        clock.now += 1
        seen = answer(share, embedding=[np.cos(angle), np.sin(angle)] if embeddings else None)
        chosen.append(chooser.ask(node, seen, size))
    return chosen


def agrees(happened: NDArray[np.bool_], probability: Floats) -> None:
    """Raise AssertionError if what happened is further from what was to be expected than chance takes it.

    Six standard deviations and six: where few inputs had a small probability, chance is no normal distribution
    (Freedman 1975, "On tail probabilities for martingales").
    """
    deviation = float(np.sqrt((probability * (1 - probability)).sum()))
    assert abs(float(happened.sum()) - float(probability.sum())) <= 6 * deviation + 6


def stream(seed: int) -> Floats:
    return np.random.default_rng(seed).uniform(0.5001, 0.9999, COUNT)


@FEW
@given(SHARES, RULES, SEEDS)
def test_without_memory_the_probability_is_what_the_rules_say_of_each_input(
    audit: float, rules: dict[str, float], seed: int
) -> None:
    best = stream(seed)
    chosen = run(policy_of(audit, rules), best, seed)
    holds = np.any([HOLDS[name][1](best, limit) for name, limit in rules.items()] or [best < 0], axis=0)
    expected = np.where(holds, 1.0, audit)
    assert [c.probability for c in chosen] == expected.tolist()
    agrees(np.array([c.selected_by is not None for c in chosen]), expected)
    agrees(np.array([c.selected_by == "audit" for c in chosen]), np.full(COUNT, audit))
    audited = np.array([c.selected_by == "audit" for c in chosen])
    agrees(audited[holds], np.full(int(holds.sum()), audit))  # whatever the rules say of it


@FEW
@given(SHARES, RULES, st.integers(1500, 2_000_000), st.none() | st.floats(0.0001, 0.3), SEEDS)
def test_with_a_budget_and_a_memory_each_is_sent_as_often_as_its_probability_says(
    audit: float, rules: dict[str, float], budget: int, within: float | None, seed: int
) -> None:
    near = {} if within is None else {"duplicates": {"by": "embedding", "within": within, "remember": 16}}
    chosen = run(policy_of(audit, rules, bytes_per_hour=budget, **near), stream(seed), seed, embeddings=True)
    sent, probability = np.array([c.selected_by is not None for c in chosen]), np.array([c.probability for c in chosen])
    assert set(probability.tolist()) <= {0.0, audit, 1.0}
    for value in (0.0, audit, 1.0):
        agrees(sent[probability == value], probability[probability == value])
