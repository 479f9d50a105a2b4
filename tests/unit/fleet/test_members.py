"""Fleet YAMLs of version 2: who is in a ring by name, zone or label, and where rings are."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from edgeloop.errors import BadInput
from edgeloop.fleet.members import Fleets, load_fleet, load_fleets
from edgeloop.fleet.places import KServePlace, KubeEdgePlace
from edgeloop.fleet.rings import FleetPlan, MalformedFleet, Members, OverlappingRings, refuse_overlaps
from edgeloop.fleet.rollouts.effects import NoTarget
from edgeloop.samples.service import list_services, load_service
from tests.conftest import ROOT
from tests.unit.samples.make import regressor

WHOLE = """
version: 2
name: plants
rings:
  0: [edge-1]
  1: {zone: hall-2}
  2: {nodes: [edge-9], labels: {line: press, topology.kubernetes.io/zone: hall-1}}
otherwise: 3
nodes:
  edge-7: {zone: hall-2}
  edge-8: {zone: hall-1, labels: {line: press}}
  edge-6: {zone: hall-1}
targets:
  kubeedge: {context: plants, options: {namespace: e, pull_secrets: [a], resources: {cpu: 50m}, at_once: 3}}
  kserve:
    sites: {0: [lab], 4: [north, south]}
    kubeconfig: ~/sites
    options: {version: [0, 20], replicas: 2}
"""


def written(folder: Path, name: str, text: str) -> Path:
    (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
    return folder


def test_a_node_is_in_a_ring_by_name_zone_or_label(tmp_path: Path) -> None:
    plan = load_fleet("f", [written(tmp_path, "f", WHOLE)])
    found = {name: plan.ring_of(name) for name in ("edge-1", "edge-7", "edge-8", "edge-9", "edge-6", "other")}
    assert found == {"edge-1": 0, "edge-7": 1, "edge-8": 2, "edge-9": 2, "edge-6": 3, "other": 3}
    assert plan.known_rings == {0, 1, 2, 3, 4}


def test_targets_have_their_options_and_the_labels_of_rings(tmp_path: Path) -> None:
    fleets = load_fleets([written(tmp_path, "f", WHOLE)])
    edge, sites = fleets.kubeedge()[1], fleets.kserve()[1]
    assert (edge.context, edge.options.pull_secrets, edge.options.resources.cpu) == ("plants", ("a",), "50m")
    assert edge.options.ring_labels == {
        1: {"topology.kubernetes.io/zone": "hall-2"},
        2: {"line": "press", "topology.kubernetes.io/zone": "hall-1"},
    }
    assert (sites.options.version, sites.options.replicas, sites.sites[4]) == ((0, 20), 2, ["north", "south"])


def test_without_any_fleet_nodes_alone_say_what_rings_there_are() -> None:
    Fleets({}).check(regressor(rings=[0, 5]))
    for target in ("kubeedge", "kserve"):
        with pytest.raises(NoTarget, match=f"add targets.{target}"):
            Fleets({}, (Path("fleets"),)).check(regressor(rollout={"target": target}))


@pytest.mark.parametrize(
    ("old", "new", "part"),
    [
        ("zone: hall-2}\n  2", "zone: hall-2, labels: {a: b}, node: x}\n  2", "field rings.1.node"),
        ("resources: {cpu: 50m}", "resources: {cpus: 50m}", "field targets.kubeedge.options.resources.cpus"),
        ("at_once: 3", "at_once: 3, image: tar", "field targets.kubeedge.options.image"),
        ("replicas: 2", "replicas: 0", "targets: kserve: replicas is 0"),
        ("[north, south]", "[]", "field targets.kserve.sites.4"),
        ("context: plants, ", "", "field targets.kubeedge.context"),
        ("otherwise: 3", "", "field otherwise"),
        ("rings:", "rings: nobody\nring:", "field rings"),
    ],
)
def test_a_mistake_is_named_by_its_field(tmp_path: Path, old: str, new: str, part: str) -> None:
    assert old in WHOLE
    written(tmp_path, "f", WHOLE.replace(old, new, 1))
    with pytest.raises(MalformedFleet) as caught:
        load_fleets([tmp_path])
    assert f"{tmp_path / 'f.yaml'}: {part}" in str(caught.value)


def test_a_fleet_that_cannot_be_read_stops_rollouts_but_not_the_start_of_another(tmp_path: Path) -> None:
    written(written(tmp_path, "a", "version: 1\nname: a\nrings: {0: [x]}\notherwise: 1"), "b", "[")
    assert load_fleet("a", [tmp_path]).ring_of("x") == 0
    with pytest.raises(MalformedFleet, match=r"b\.yaml is not YAML"):
        load_fleets([tmp_path])


LABELS = st.dictionaries(st.sampled_from("ab"), st.sampled_from("xy"), min_size=1)


@given(st.lists(LABELS, min_size=1, max_size=4), LABELS)
def test_rings_that_are_let_through_share_no_node(asked: list[dict[str, str]], labels: dict[str, str]) -> None:
    """Whatever labels a node comes with, it is in one ring at most, or the fleet was refused."""
    rings = {ring: Members(labels=one) for ring, one in enumerate(asked)}
    plan = FleetPlan(version=2, name="f", rings=rings, otherwise=9)
    try:
        refuse_overlaps(Path("f"), plan)
    except OverlappingRings:
        return
    assert sum(members.has("n", labels) for members in rings.values()) <= 1


def test_the_local_fleet_can_be_followed_by_every_service() -> None:
    folder = ROOT / "deployments"
    fleets = load_fleets([folder / "fleets"])
    for name in list_services([folder / "services"]):
        fleets.check(load_service(name, [folder / "services"]))


@pytest.mark.parametrize(
    ("heading", "model"),
    [("### Ring members", Members), ("### kubeedge of a fleet", KubeEdgePlace), ("### kserve of a fleet", KServePlace)],
)
def test_the_settings_page_has_every_field(heading: str, model: type[BaseModel]) -> None:
    page = (ROOT / "docs" / "reference" / "settings.md").read_text(encoding="utf-8")
    section = page.split(f"{heading}\n")[1].split("\n#")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)) == set(model.model_fields)


def test_the_example_of_the_settings_page_can_be_read(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "reference" / "settings.md").read_text(encoding="utf-8")
    examples = re.findall(r"```yaml\n(version: 2.*?)```", page, re.DOTALL)
    for how_to in ("kubeedge", "kserve"):
        text = (ROOT / "docs" / "how-to" / f"{how_to}.md").read_text(encoding="utf-8")
        examples += re.findall(r"```yaml\n(version: 2.*?)```", text, re.DOTALL)
    assert len(examples) == 3
    for text in examples:
        written(tmp_path, "f", text)
        try:
            load_fleets([tmp_path])
        except BadInput as error:
            raise AssertionError(text) from error
