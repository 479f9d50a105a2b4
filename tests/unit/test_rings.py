"""A fleet YAML says which ring a node is in, and nothing it does not say is guessed."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeloop.fleet.members import NodeInTwoFleets, load_fleet
from edgeloop.fleet.rings import EmptyRing, MalformedFleet

ROOT = Path(__file__).resolve().parents[2]


def test_the_local_fleet_has_one_canary() -> None:
    fleet = load_fleet("local", [ROOT / "deployments" / "fleets"])
    assert [fleet.ring_of(f"edge-{n}") for n in (1, 2, 3, 4)] == [0, 1, 1, 1]


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("rings: [", "not YAML"),
        ("version: 3\nname: a\nrings: {}\notherwise: 0", "version"),
        ("version: 1\nname: a\nrings: {0: [x], 1: [x]}\notherwise: 0", "x is in two rings"),
        ("version: 1\nname: a\nrings: {-1: [x]}\notherwise: 0", "rings"),
        ("version: 1\nname: a\nrings: {}\nother: 0", "otherwise"),
    ],
)
def test_a_malformed_fleet_is_named(tmp_path: Path, text: str, part: str) -> None:
    path = tmp_path / "f.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(MalformedFleet, match=part) as caught:
        load_fleet("f", [tmp_path])
    assert str(path) in str(caught.value)


def test_a_missing_fleet_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(MalformedFleet, match="--fleet"):
        load_fleet("none", [tmp_path])


def test_a_ring_without_a_node_is_refused(tmp_path: Path) -> None:
    (tmp_path / "f.yaml").write_text("version: 1\nname: f\nrings: {0: [x], 3: []}\notherwise: 0", encoding="utf-8")
    with pytest.raises(EmptyRing, match="ring 3 has no node"):
        load_fleet("f", [tmp_path])


def test_a_node_in_two_fleets_is_refused_by_name(tmp_path: Path) -> None:
    for name, nodes in (("a", "x, y"), ("b", "y, z"), ("c", "w")):
        text = f"version: 1\nname: {name}\nrings: {{0: [{nodes}]}}\notherwise: 1"
        (tmp_path / f"{name}.yaml").write_text(text, encoding="utf-8")
    (tmp_path / "odd.yaml").write_text("rings: [", encoding="utf-8")
    with pytest.raises(NodeInTwoFleets, match=r"y is in fleet .*a\.yaml and in fleet .*b\.yaml"):
        load_fleet("a", [tmp_path])
    assert load_fleet("c", [tmp_path]).ring_of("w") == 0
