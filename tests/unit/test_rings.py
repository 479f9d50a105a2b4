"""A fleet YAML says which ring a node is in, and nothing it does not say is guessed."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeloop.fleet.rings import MalformedFleet, load_fleet

ROOT = Path(__file__).resolve().parents[2]


def test_the_local_fleet_has_one_canary() -> None:
    fleet = load_fleet(ROOT / "deployments" / "fleets" / "local.yaml")
    assert [fleet.ring_of(f"edge-{n}") for n in (1, 2, 3, 4)] == [0, 1, 1, 1]


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("rings: [", "not YAML"),
        ("version: 2\nname: a\nrings: {}\notherwise: 0", "version"),
        ("version: 1\nname: a\nrings: {0: [x], 1: [x]}\notherwise: 0", "x is in two rings"),
        ("version: 1\nname: a\nrings: {-1: [x]}\notherwise: 0", "rings"),
        ("version: 1\nname: a\nrings: {}\nother: 0", "otherwise"),
    ],
)
def test_a_malformed_fleet_is_named(tmp_path: Path, text: str, part: str) -> None:
    path = tmp_path / "f.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(MalformedFleet, match=part) as caught:
        load_fleet(path)
    assert str(path) in str(caught.value)


def test_a_missing_fleet_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(MalformedFleet, match="--fleet"):
        load_fleet(tmp_path / "none.yaml")
