"""What clusters are given: as kept in files, true to the API's models, bounded, locked down and pinned."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeloop.clients.cluster import Manifest
from edgeloop.fleet.targets.kubeedge_manifests import (
    HOLD,
    NODES_PER_JOB,
    KubeEdgeOptions,
    daemonset,
    node_group,
    prepull_jobs,
    ring_name,
)
from edgeloop.fleet.targets.pods import named
from tests.contract.models.strict import faults
from tests.unit.fleet.targets.edge import NEW, OLD, SERVING
from tests.unit.fleet.targets.kept_manifests import FOLDER, made, text

MADE = made()
DAEMONSETS = {name: manifest for name, manifest in MADE.items() if manifest["kind"] == "DaemonSet"}
#: KubeEdge has no Python models; these are the fields of its API, v1.23.
PREPULL_FIELDS = {
    "images", "nodeNames", "labelSelector", "checkItems", "failureTolerate", "concurrency", "timeoutSeconds",
    "imageSecrets", "retryTimes",
}  # fmt: skip
DNS_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
LABEL_VALUE = re.compile(r"([A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?")


@pytest.mark.parametrize("name", MADE)
def test_as_kept(name: str) -> None:
    assert text(MADE[name]) == (FOLDER / f"{name}.yaml").read_text(encoding="utf-8"), (
        "if it is meant:  python -m tests.unit.fleet.targets.kept_manifests"
    )


def test_nothing_else_is_kept() -> None:
    assert {path.stem for path in FOLDER.iterdir()} == set(MADE)


@pytest.mark.parametrize("name", DAEMONSETS)
def test_true_to_the_models(name: str) -> None:
    assert faults(DAEMONSETS[name]) == []


@pytest.mark.parametrize(
    ("where", "value"),
    [
        (("spec", "maxUnavailable"), 1),
        (("spec", "template", "spec", "containers", 0, "readinesProbe"), {}),
        (("spec", "template", "spec", "containers", 0, "image_pull_policy"), "Always"),
        (("spec", "template", "spec", "tolerations"), {"key": "a"}),
        (("spec", "minReadySeconds"), "five"),
    ],
)
def test_the_models_find_what_is_wrong(where: tuple[Any, ...], value: Any) -> None:
    broken: Any = copy.deepcopy(MADE["daemonset-predictor"])
    here = broken
    for step in where[:-1]:
        here = here[step]
    here[where[-1]] = value
    assert faults(broken)


def pods() -> Iterator[tuple[str, Manifest]]:
    for name, manifest in DAEMONSETS.items():
        yield name, manifest["spec"]["template"]["spec"]


@pytest.mark.parametrize(("name", "pod"), [*pods()])
def test_pods_are_locked_down(name: str, pod: Manifest) -> None:
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] > 0
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not {"hostNetwork", "hostPID", "hostIPC", "serviceAccountName"} & pod.keys()
    assert not [volume for volume in pod["volumes"] if "hostPath" in volume]
    for container in pod["containers"] + pod.get("initContainers", []):
        security = container["securityContext"]
        assert (security["allowPrivilegeEscalation"], security["readOnlyRootFilesystem"]) == (False, True)
        assert security["capabilities"] == {"drop": ["ALL"]}
        assert {"cpu", "memory"} == container["resources"]["requests"].keys() == container["resources"]["limits"].keys()
        assert re.search(r"@sha256:[0-9a-f]{64}$", container["image"])


@pytest.mark.parametrize(("name", "pod"), [*pods()])
def test_pods_are_probed_and_their_mounts_exist(name: str, pod: Manifest) -> None:
    (container,) = pod["containers"]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe]["httpGet"]["port"] in {port["name"] for port in container["ports"]}
    every = pod["containers"] + pod.get("initContainers", [])
    assert {m["name"] for c in every for m in c["volumeMounts"]} == {v["name"] for v in pod["volumes"]}


@pytest.mark.parametrize(("name", "pod"), [*pods()])
def test_only_edge_nodes_of_the_ring_are_chosen_and_only_edge_taints_borne(name: str, pod: Manifest) -> None:
    assert pod["nodeSelector"]["node-role.kubernetes.io/edge"] == ""
    assert {"edgeloop/ring", "apps.kubeedge.io/belonging-to"} & pod["nodeSelector"].keys()
    assert [t["key"] for t in pod["tolerations"]] == ["node-role.kubernetes.io/edge"]


@pytest.mark.parametrize("name", DAEMONSETS)
def test_a_node_is_never_without_a_pod_unless_the_port_is_the_nodes(name: str) -> None:
    manifest = DAEMONSETS[name]
    rate = manifest["spec"]["updateStrategy"]["rollingUpdate"]
    (container,) = manifest["spec"]["template"]["spec"]["containers"]
    is_on_node = any("hostPort" in port for port in container["ports"])
    assert (rate["maxUnavailable"] == 0) == (not is_on_node)
    assert (rate["maxSurge"] == 0) == is_on_node


def test_a_hold_is_put_on_pods_on_request() -> None:
    held = [n for n, m in DAEMONSETS.items() if HOLD in m["spec"]["template"]["metadata"]["annotations"]]
    assert held == ["daemonset-savedmodel"]


def test_a_release_changes_no_selector_and_no_name() -> None:
    old, new = (daemonset("wine-rater", 0, release, KubeEdgeOptions()) for release in (OLD, NEW))
    assert old["spec"]["selector"] == new["spec"]["selector"]
    assert old["metadata"]["name"] == new["metadata"]["name"]
    assert old["spec"]["template"] != new["spec"]["template"]


def test_selectors_match_their_own_pods_only() -> None:
    made = [daemonset(service, ring, OLD, KubeEdgeOptions()) for service in ("wine", "wine-2") for ring in (0, 1)]
    pods = {m["metadata"]["name"]: m["spec"]["template"]["metadata"]["labels"].items() for m in made}
    for one in made:
        selector = one["spec"]["selector"]["matchLabels"].items()
        assert [name for name, labels in pods.items() if selector <= labels] == [one["metadata"]["name"]]


def test_prepull_jobs_have_fields_of_the_api_and_bounded_nodes() -> None:
    names = [f"edge-{number}" for number in range(2 * NODES_PER_JOB + 1)]
    found = prepull_jobs("wine-rater", 0, OLD, names, KubeEdgeOptions())
    templates = [job["spec"]["imagePrePullTemplate"] for job in found]
    assert [len(t["nodeNames"]) for t in templates] == [500, 500, 1]
    assert sorted(node for t in templates for node in t["nodeNames"]) == sorted(names)
    assert all(t.keys() <= PREPULL_FIELDS for t in templates)
    assert all(float(t["failureTolerate"]) == 1 for t in templates)
    assert len({job["metadata"]["name"] for job in found}) == 3


def test_the_same_pull_has_the_same_name_and_another_another() -> None:
    def name(*, image: str = "predictor", turn: int = 0, nodes: tuple[str, ...] = ("a", "b"), space: str = "x") -> str:
        options = KubeEdgeOptions(image=image, server=SERVING, namespace=space)  # type: ignore[arg-type]
        (job,) = prepull_jobs("wine-rater", 0, OLD, nodes, options, turn)
        return str(job["metadata"]["name"])

    assert name() == name(nodes=("b", "a"))
    assert len({name(), name(turn=1), name(nodes=("a",)), name(image="savedmodel"), name(space="y")}) == 5


parts = st.from_regex(DNS_LABEL, fullmatch=True)


@given(st.text(max_size=80), st.integers(0, 10**6))
def test_names_are_labels(service: str, ring: int) -> None:
    for name in (ring_name(service, ring), named("a", service)):
        assert DNS_LABEL.fullmatch(name)


@given(st.lists(st.tuples(parts, st.integers(0, 999)), min_size=2, max_size=5, unique=True))
def test_names_are_told_apart(rings: list[tuple[str, int]]) -> None:
    assert len({ring_name(service, ring) for service, ring in rings}) == len(rings)


def test_long_names_are_told_apart() -> None:
    long = "a" * 62
    assert len({ring_name(long + tail, ring) for tail in ("a", "b") for ring in (1, 2)}) == 4


@given(parts, st.integers(0, 10**6))
def test_labels_are_label_values(service: str, ring: int) -> None:
    found = daemonset(service, ring, OLD, KubeEdgeOptions())
    labels = {**found["metadata"]["labels"], **found["spec"]["template"]["metadata"]["labels"]}
    assert all(LABEL_VALUE.fullmatch(value) for value in labels.values())


def test_a_ring_is_known_by_the_labels_that_the_fleet_gives_it() -> None:
    options = KubeEdgeOptions(ring_labels={0: {"line": "press"}})
    for ring, labels in ((0, {"line": "press"}), (1, {"edgeloop/ring": "1"})):
        selector = daemonset("wine-rater", ring, NEW, options)["spec"]["template"]["spec"]["nodeSelector"]
        assert selector == {"node-role.kubernetes.io/edge": "", **labels}
        assert node_group(ring, options)["spec"] == {"matchLabels": labels}
