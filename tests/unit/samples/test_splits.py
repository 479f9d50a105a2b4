"""A group stays on its side for ever: the assignment is pinned, so that no change of the hash passes unnoticed."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeloop.samples.splits import SHARES, split_of


@pytest.mark.parametrize(
    ("group", "service", "split"),
    [
        ("group-0", "rater", "pool"),
        ("group-1", "sorter", "gate"),
        ("group-1", "rater", "pool"),
        ("", "rater", "test"),
        ("größe", "rater", "test"),
        ("device-7/2024-01-01", "cats-dogs", "gate"),
    ],
)
def test_known_groups_are_where_they_always_were(group: str, service: str, split: str) -> None:
    assert split_of(group, service) == split


def test_the_shares_are_those_promised() -> None:
    count = 20_000
    found = Counter(split_of(f"g{n}", "rater") for n in range(count))
    assert set(found) == set(SHARES)
    for split, percent in SHARES.items():
        assert abs(found[split] / count - percent / 100) < 0.015


@given(st.text(), st.text(alphabet="abcdefghijklmnopqrstuvwxyz0123456789-", min_size=1))
def test_every_group_has_one_split(group: str, service: str) -> None:
    assert split_of(group, service) == split_of(group, service)
    assert split_of(group, service) in SHARES


def test_services_split_independently() -> None:
    """What one service keeps for its gate says nothing about where another one puts the same session."""
    same = sum(split_of(f"g{n}", "rater") == split_of(f"g{n}", "sorter") for n in range(5000)) / 5000
    assert abs(same - (0.6**2 + 0.2**2 + 0.2**2)) < 0.03
