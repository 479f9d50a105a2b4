"""A node's place decides its batch, and nothing else does."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edgeloop.samples.cohorts import EVERYONE, NOBODY, bound, place, switches

names = st.sets(st.text("abc0123-", min_size=1, max_size=8), max_size=40)


@given(names, st.integers(-1, 45), st.text("xyz", max_size=4))
def test_a_bound_lets_exactly_its_count_through(nodes: set[str], count: int, salt: str) -> None:
    below = bound(salt, nodes, count)
    assert sum(switches(salt, node, below) for node in nodes) == max(0, min(count, len(nodes)))


@given(names, st.integers(0, 40), st.integers(0, 40))
def test_a_later_batch_keeps_the_earlier_ones(nodes: set[str], first: int, more: int) -> None:
    early, late = bound("s", nodes, first), bound("s", nodes, first + more)
    assert {n for n in nodes if switches("s", n, early)} <= {n for n in nodes if switches("s", n, late)}


def test_places_are_pinned_and_differ_by_rollout() -> None:
    """Nodes that are out there compute the same."""
    assert place("s", "edge-1") == "177195b8cc5042f2"
    assert place("t", "edge-1") != place("s", "edge-1")
    assert switches("s", "edge-1", EVERYONE)
    assert not switches("s", "edge-1", NOBODY)
