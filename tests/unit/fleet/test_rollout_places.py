"""``edgeloop rollout start | plan`` against fleet YAMLs, those that cannot be followed above all."""

from __future__ import annotations

import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from edgeloop.clients.cluster import DAEMON_SETS, ClusterUnavailable
from edgeloop.fleet.publisher import Publisher
from edgeloop.fleet.rollouts.state_store import StateStore
from edgeloop.fleet.show import ExpiredSignature
from edgeloop.fleet.signing import Keys
from edgeloop.fleet.targets.kubeedge import KubeEdgeTarget
from edgeloop.fleet.targets.kubeedge_manifests import KubeEdgeOptions, daemonset
from edgeloop.fleet.targets.protocol import Wave
from edgeloop.samples.records import now
from edgeloop.samples.releases import Release, Variant, release_key
from tests.unit.fleet.home import EDGE, HEAD, OLD_HEAD, SERVICE, Home, heard
from tests.unit.fleet.targets.edge import EdgeCluster, release
from tests.unit.fleet.targets.sites import Site


@pytest.fixture
def home(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    made = Home(tmp_path, capsys, monkeypatch)
    yield made
    made.app.fleet.close()


BAD = {
    "node in two rings": ("agent", {"a": HEAD + "rings: {0: [x], 1: [x]}"}, "x is in two rings, 0 and 1"),
    "by name and label": (
        "agent",
        {"a": HEAD + "rings: {0: [x], 2: {zone: hall}}\nnodes: {x: {zone: hall}}"},
        "x is in two rings, 0 and 2",
    ),
    "labels of both": (
        "agent",
        {"a": HEAD + "rings: {0: {nodes: [x], zone: hall}, 2: {nodes: [y], labels: {line: press}}}"},
        "rings 0 and 2 overlap",
    ),
    "empty": ("agent", {"a": HEAD + "rings: {0: [x], 3: []}"}, "ring 3 has no node"),
    "empty by label": ("agent", {"a": HEAD + "rings: {0: {zone: hall}}\nnodes: {x: {zone: yard}}"}, "ring 0 has no"),
    "two fleets": (
        "agent",
        {"a": HEAD + "rings: {0: [x]}", "b": HEAD + "rings: {}\nnodes: {x: {zone: hall}}"},
        "x is in fleet",
    ),
    "ring in no fleet": ("agent", {"a": OLD_HEAD + "rings: {3: [x]}"}, "ring 0, fleets have 1, 3"),
    "version 1 with labels": ("agent", {"a": OLD_HEAD + "rings: {0: {zone: a}}"}, "set version to 2"),
    "no such target": ("kubeedge", {"a": HEAD + "rings: {0: [x]}"}, "no fleet says where target kubeedge is"),
    "no YAML at all": ("kserve", {}, "no fleet says where target kserve is"),
    "unknown context": (
        "kubeedge",
        {"a": HEAD + "rings: {0: [x]}\ntargets: {kubeedge: {context: east}}"},
        "the kubeconfig has no context 'east', only lab, west",
    ),
    "unknown site": (
        "kserve",
        {"a": HEAD + "rings: {}\ntargets: {kserve: {sites: {0: [lab], 1: [south]}}}"},
        "the kubeconfig has no context 'south'",
    ),
    "no site": ("kserve", {"a": HEAD + "rings: {}\ntargets: {kserve: {sites: {0: [lab]}}}"}, "ring 1, targets.kserve"),
    "ring not on the cluster": (
        "kubeedge",
        {"a": "version: 2\nname: a\notherwise: 0\nrings: {}\ntargets: {kubeedge: {context: west}}"},
        "ring 1, the fleet has 0",
    ),
    "labels and no labels": (
        "kubeedge",
        {"a": HEAD + "rings: {0: {zone: hall}}\ntargets: {kubeedge: {context: west}}"},
        "rings 0 and 1 overlap on kubeedge, a node may have topology.kubernetes.io/zone=hall, edgeloop/ring=1",
    ),
    "target twice": (
        "kubeedge",
        {"a": HEAD + EDGE, "b": HEAD + EDGE.replace("[x]", "[y]")},
        "target kubeedge is in fleet",
    ),
    "unknown option": (
        "kubeedge",
        {"a": HEAD + "rings: {0: [x]}\ntargets: {kubeedge: {context: west, options: {namspace: e}}}"},
        "field targets.kubeedge.options.namspace",
    ),
    "options that contradict": (
        "kubeedge",
        {"a": HEAD + "rings: {0: [x]}\ntargets: {kubeedge: {context: west, options: {image: savedmodel}}}"},
        "targets: kubeedge: image savedmodel needs",
    ),
    "not pushed": ("kubeedge", {"a": HEAD + EDGE}, "release push rater REGISTRY/REPOSITORY --kind predictor"),
}  # fmt: skip


@pytest.mark.parametrize("verb", ["start", "plan"])
@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_followed_is_one_line_and_begins_nothing(home: Home, case: str, verb: str) -> None:
    target, fleets, part = BAD[case]
    home.serves(target)
    for name, text in fleets.items():
        home.write(f"fleets/{name}.yaml", text)
    code, found = home.run("rollout", verb, "rater", "3")
    assert code == 2
    assert part in found["error"]
    assert StateStore(home.app.fleet.database).opened("rater") == (None, None)
    assert home.app.fleet.history("rater") == []


WINDOW = "windows: [{from: '%s', to: '%s', zone: Europe/Berlin}]"


@pytest.mark.parametrize("verb", ["start", "plan"])
@pytest.mark.parametrize(
    ("rollout", "part"),
    [
        (WINDOW % ("02:30", "05:00"), "begin at 03:00 or leave sun out"),
        (WINDOW % ("01:00", "02:30"), "end at 03:00 or leave sun out"),
        ("rings: {1: {%s}}" % (WINDOW % ("02:30", "05:00")), "begin at 03:00 or leave sun out"),
    ],
)
def test_a_window_in_a_gap_of_summer_time_begins_nothing(home: Home, verb: str, rollout: str, part: str) -> None:
    home.approve()
    home.write("services/rater.yaml", SERVICE.replace("{target: %s}", f"{{{rollout}}}") % "[0, 1]")
    code, found = home.run("rollout", verb, "rater", "3")
    assert code == 2
    assert "window 02:30 Europe/Berlin does not exist on 20" in found["error"]
    assert found["error"].endswith(part)
    assert StateStore(home.app.fleet.database).opened("rater") == (None, None)
    assert home.app.fleet.history("rater") == []


@pytest.mark.parametrize("verb", ["start", "plan"])
def test_on_a_channel_that_ran_out_nothing_begins(home: Home, verb: str) -> None:
    """Unless its keys are here: then the next tick signs it anew."""
    long_ago = now() - timedelta(days=3 * 365)
    Publisher(home.app.store, Keys(home.app.settings.keys_folder), lambda: long_ago).ensure()
    assert home.run("rollout", "plan", "rater", "3")[0] == 0
    (home.app.settings.keys_folder / "releases.pem").unlink()
    code, found = home.run("rollout", verb, "rater", "3")
    assert code == 2
    assert "the signature of releases ran out" in found["error"]
    assert "edgeloop release sign" in found["error"]
    assert StateStore(home.app.fleet.database).opened("rater") == (None, None)


def test_on_a_channel_that_ran_out_nothing_is_rolled_back(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is under way can still be ended: nothing new is promised by that."""
    good = Release(service="rater", version="2", run_id="r", dataset="d", layers=[])
    home.app.store.create(release_key("rater", good.digest), good.to_bytes())
    long_ago = now() - timedelta(days=3 * 365)
    Publisher(home.app.store, Keys(home.app.settings.keys_folder), lambda: long_ago).approve("rater", good.digest)
    monkeypatch.setattr(StateStore, "good", lambda *_: [good.digest])
    (home.app.settings.keys_folder / "releases.pem").unlink()
    code, found = home.run("rollback", "rater")
    assert code == 2
    assert "the signature of releases ran out" in found["error"]
    assert StateStore(home.app.fleet.database).opened("rater") == (None, None)
    with pytest.raises(ExpiredSignature):  # nor does the alias begin anything
        home.app.promotion.rollouts.start(home.app.service("rater"), good.digest, "alias", "champion", again=True)
    home.serves("kubeedge")
    assert "no fleet says where target kubeedge is" in home.run("rollback", "rater")[1]["error"]


@pytest.mark.parametrize("verb", ["start", "plan"])
def test_nodes_of_a_profile_without_a_variant_are_named_and_nothing_begins(home: Home, verb: str) -> None:
    heard(home, [("a", 0, None, None)], profile="generic-amd64")
    heard(home, [(f"pi-{n}", 1, None, None) for n in range(4)], profile="raspberry-pi-4")
    heard(home, [("bare", 1, None, None)])
    told = {"runtime": "litert", "precision": "int8", "layers": [], "agreement": 1.0, "compared": 9}
    variants = [Variant.model_validate({"profile": name, **told}) for name in ("generic-amd64", "raspberry-pi-4")]
    for version, count in (("4", 1), ("5", 2)):
        made = Release(service="rater", version=version, run_id="r", dataset="d", layers=[], variants=variants[:count])
        home.app.store.create(release_key("rater", made.digest), made.to_bytes())
        home.app.fleet.add_release("rater", version, made.digest)
        home.app.channel.approve("rater", made.digest)
    code, found = home.run("rollout", verb, "rater", "4")
    assert code == 2
    assert "4 nodes (pi-0, pi-1, pi-2 …): release" in found["error"]
    assert "has no variant for profile 'raspberry-pi-4', only generic-amd64: add it to" in found["error"]
    assert StateStore(home.app.fleet.database).opened("rater") == (None, None)
    assert home.run("rollout", verb, "rater", "5")[0] == 0


def test_without_the_client_the_extra_is_named(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "kubernetes.client", None)
    home.serves("kubeedge")
    home.write("fleets/a.yaml", HEAD + EDGE)
    home.push()
    code, found = home.run("rollout", "start", "rater", "3")
    assert code == 2
    assert "pip install 'edgeloop[cluster]'" in found["error"]


def test_a_release_that_no_key_signed_is_not_begun_on_a_cluster(home: Home) -> None:
    home.serves("kubeedge")
    home.write("fleets/a.yaml", HEAD + EDGE)
    home.push()
    code, found = home.run("rollout", "start", "rater", "3")
    assert code == 1
    assert "is not approved" in found["error"]
    assert StateStore(home.app.fleet.database).opened("rater") == (None, None)
    home.approve()
    assert home.run("rollout", "start", "rater", "3")[1]["state"] == "moving"


def test_a_fleet_of_the_home_takes_the_place_of_one_of_its_name(home: Home) -> None:
    home.approve()
    home.write("rooms/deployments/fleets/local.yaml", "version: 1\nname: local\nrings: {0: [x]}\notherwise: 7")
    home.write("fleets/local.yaml", "version: 1\nname: local\nrings: {0: [x]}\notherwise: 1")
    assert home.run("rollout", "start", "rater", "3")[1]["state"] == "moving"


def test_a_ring_that_nodes_are_in_needs_no_fleet(home: Home) -> None:
    home.approve()
    home.write("fleets/a.yaml", "version: 1\nname: a\nrings: {0: [x]}\notherwise: 0")
    assert home.run("rollout", "start", "rater", "3")[0] == 2
    heard(home, [("y", 1, None, None)])
    assert home.run("rollout", "start", "rater", "3")[1]["state"] == "moving"


def test_a_plan_says_what_would_change_on_the_cluster(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = EdgeCluster()
    monkeypatch.setattr("edgeloop.clients.cluster_kubernetes.connect", lambda *_: cluster)
    home.serves("kubeedge")
    home.write(
        "fleets/a.yaml", HEAD + "rings: {0: {labels: {edgeloop/ring: '0'}}}\ntargets: {kubeedge: {context: west}}"
    )
    home.approve()
    text = home.text("rollout", "plan", "rater")
    assert "ring 0: 2 nodes" in text
    assert "+ DaemonSet edgeloop/edgeloop-rater-ring-0" in text
    code, found = home.run("rollout", "plan", "rater")
    assert (code, [ring["nodes"] for ring in found["rings"]]) == (0, [2, 2])
    assert not [one for one in cluster.objects() if one[0] == "DaemonSet"]
    cluster.away = True
    found = home.run("rollout", "plan", "rater")[1]
    assert "does not answer" in found["rings"][0]["warnings"][0]


def test_a_plan_stops_at_a_conflict(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = EdgeCluster()
    monkeypatch.setattr("edgeloop.clients.cluster_kubernetes.connect", lambda *_: cluster)
    home.serves("kubeedge")
    home.write("fleets/a.yaml", HEAD + EDGE)
    home.approve()
    spec = {"template": {"spec": {"containers": [{"name": "predictor", "image": "theirs"}]}}}
    meta = {
        "name": "edgeloop-rater-ring-0",
        "namespace": "edgeloop",
        "labels": {"app.kubernetes.io/managed-by": "edgeloop"},
    }
    ours = {"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": meta}
    cluster.apply(DAEMON_SETS, daemonset("rater", 0, release("a"), KubeEdgeOptions()))
    cluster.edit(DAEMON_SETS, {**ours, "spec": spec}, "kubectl-edit")
    code, found = home.run("rollout", "plan", "rater")
    assert code == 1
    assert "is managed by 'kubectl-edit'" in found["error"]


def test_a_plan_says_which_windows_there_are(home: Home) -> None:
    home.write(
        "services/rater.yaml",
        SERVICE.replace("{target: %s}", "{windows: [{from: '01:00', to: '03:00', zone: UTC, date: 2999-01-01}]}")
        % "[0, 1]",
    )
    text = home.text("rollout", "plan", "rater")
    assert "ring 1: 0 nodes, within 2999-01-01 01:00-03:00 UTC, not before 2999-01-01 01:00 UTC" in text


def test_sites_are_told_apart(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    sites = {"lab": Site("lab"), "west": Site("west")}
    monkeypatch.setattr("edgeloop.clients.cluster_kubernetes.connect", lambda context, *_: sites[context])
    home.serves("kserve", "[0]")
    home.write(
        "fleets/a.yaml",
        HEAD + "rings: {}\ntargets: {kserve: {sites: {0: [lab, west]}, options: {namespace: edgeloop}}}",
    )
    home.approve()
    sites["west"].away = True
    text = home.text("rollout", "plan", "rater")
    assert "lab: + InferenceService edgeloop/edgeloop-rater" in text
    assert "warning: west is away" in text


def test_the_app_makes_each_target_once(home: Home) -> None:
    home.write("fleets/a.yaml", HEAD + EDGE)
    target = home.app.targets("kubeedge")
    assert isinstance(target, KubeEdgeTarget)
    assert home.app.targets("kubeedge") is target
    with pytest.raises(ClusterUnavailable):
        target.observe(Wave("rater", 0, None))
