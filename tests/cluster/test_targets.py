"""The targets on a real API server: every manifest is taken, changed, taken back, and nothing is left."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from edgeloop.clients.cluster import DAEMON_SETS, FieldConflict, Kind, Manifest, UnknownKind
from edgeloop.clients.cluster_kubernetes import KubernetesCluster
from edgeloop.fleet.targets.kserve import KServeTarget
from edgeloop.fleet.targets.kserve_manifests import INFERENCE_SERVICES, KServeOptions, inference_service
from edgeloop.fleet.targets.kubeedge import KubeEdgeTarget
from edgeloop.fleet.targets.kubeedge_manifests import (
    NODE_GROUPS,
    PREPULL_JOBS,
    KubeEdgeOptions,
    daemonset,
    node_group,
    prepull_jobs,
    ring_name,
)
from edgeloop.fleet.targets.pods import MANAGED
from edgeloop.fleet.targets.protocol import Next, Observed, ReleaseRef, Wave
from edgeloop.samples.cohorts import EVERYONE, NOBODY
from tests.cluster.conftest import RING, images, kubectl
from tests.unit.fleet.targets.edge import SERVING, release

pytestmark = pytest.mark.cluster

SERVICE = "edgeloop-cluster-test"
GIVEN = images()
OLD, NEW = (release(x, **(GIVEN[n] if GIVEN else {})) for n, x in enumerate("ab"))
runs = pytest.mark.skipif(GIVEN is None, reason="EDGELOOP_CLUSTER_IMAGES names no images that can run")


def at_rest(of: ReleaseRef = OLD) -> Wave:
    return Wave(SERVICE, RING, of)


def moving(below: str = EVERYONE) -> Wave:
    return Wave(SERVICE, RING, OLD, Next(NEW, "salt", below))


def until(holds: Callable[[], bool], what: str, seconds: float = 300) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, f"{what}: not after {seconds:.0f} s"
        time.sleep(1)


def ours(cluster: KubernetesCluster) -> set[tuple[str, str]]:
    """All that carries our label, in all namespaces."""
    found = set()
    for kind in (DAEMON_SETS, PREPULL_JOBS, NODE_GROUPS, INFERENCE_SERVICES):
        try:
            found |= {(kind.kind, one["metadata"]["uid"]) for one in cluster.list(kind, labels=MANAGED)}
        except UnknownKind:
            continue
    return found


def each(namespace: str) -> list[tuple[Kind, Manifest]]:
    plain = KubeEdgeOptions(namespace=namespace)
    served = KubeEdgeOptions(namespace=namespace, image="savedmodel", server=SERVING, hold=True)
    kinds: list[tuple[Kind, Manifest]] = [
        (DAEMON_SETS, daemonset(SERVICE, RING, OLD, plain)),
        (DAEMON_SETS, daemonset(SERVICE, RING + 1, OLD, served)),
        (DAEMON_SETS, daemonset(SERVICE, RING + 2, OLD, KubeEdgeOptions(namespace=namespace, reports="broker"))),
        (NODE_GROUPS, node_group(RING)),
        (PREPULL_JOBS, prepull_jobs(SERVICE, RING, OLD, ["none-such"], plain)[0]),
    ]
    options: list[dict[str, Any]] = [
        {},
        {"reports": "broker"},
        {"image": "savedmodel"},
        {"image": "model", "model_format": "onnx"},
    ]
    made = [inference_service(SERVICE, RING, OLD, KServeOptions(namespace=namespace, **o), "north") for o in options]
    return kinds + [(INFERENCE_SERVICES, one) for one in made]


def test_every_manifest_is_taken(cluster: KubernetesCluster, namespace: str) -> None:
    """By a dry run with strict validation; kinds that are not installed are passed over."""
    taken = []
    for kind, manifest in each(namespace):
        try:
            taken.append(cluster.apply(kind, manifest, dry_run=True).object["kind"])
        except UnknownKind:
            continue
    assert "DaemonSet" in taken


def test_a_ring_is_installed_changed_taken_back_and_gone(
    cluster: KubernetesCluster, namespace: str, edge_nodes: list[str]
) -> None:
    before = ours(cluster)
    target = KubeEdgeTarget(cluster, KubeEdgeOptions(namespace=namespace))
    assert target.plan(at_rest()).lines
    assert target.switch(at_rest()).changed == 1
    assert target.switch(at_rest()).changed == 0

    def scheduled() -> bool:
        found = cluster.get(DAEMON_SETS, ring_name(SERVICE, RING), namespace) or {}
        return bool(found.get("status", {}).get("desiredNumberScheduled") == len(edge_nodes))

    until(scheduled, "the DaemonSet wants a pod on each edge node")
    assert target.stage(moving(NOBODY)).state == "done"
    assert target.switch(moving()).changed > 0
    seen = target.observe(moving())
    assert (seen.nodes, seen.offline) == (2, 0)
    assert target.revert(at_rest()).changed == 1
    assert target.plan(at_rest()).lines == ()
    target.uninstall()
    until(lambda: ours(cluster) == before, "nothing is left")


@runs
def test_a_ring_runs_what_it_is_given(cluster: KubernetesCluster, namespace: str, edge_nodes: list[str]) -> None:
    target = KubeEdgeTarget(cluster, KubeEdgeOptions(namespace=namespace))
    try:
        target.switch(at_rest())
        until(lambda: target.observe(at_rest()) == Observed(2, 2, 2, 0, 0), "both nodes run the release")
        target.stage(moving(NOBODY))
        until(lambda: target.observe(moving(NOBODY)).staged == 2, "both nodes have the next one's images")
        target.switch(moving())
        until(lambda: target.observe(moving()).switched == 2, "both nodes run the next one")
        target.revert(at_rest())
        until(lambda: target.observe(at_rest()).switched == 2, "both nodes are back")
    finally:
        target.uninstall()


def test_a_field_of_anothers_is_reported_and_kept(cluster: KubernetesCluster, namespace: str) -> None:
    manifest = daemonset(SERVICE, RING, OLD, KubeEdgeOptions(namespace=namespace))
    cluster.apply(DAEMON_SETS, manifest)
    theirs = json.dumps({"spec": {"minReadySeconds": 77}})
    name = manifest["metadata"]["name"]
    kubectl("--context", cluster.name, "-n", namespace, "patch", "daemonset", name, "--type=merge", "-p", theirs)
    with pytest.raises(FieldConflict) as caught:
        cluster.apply(DAEMON_SETS, manifest)
    assert caught.value.fields == (".spec.minReadySeconds",)
    live = cluster.get(DAEMON_SETS, name, namespace)
    assert live and live["spec"]["minReadySeconds"] == 77


def test_only_the_one_that_was_meant_is_deleted(cluster: KubernetesCluster, namespace: str) -> None:
    manifest = daemonset(SERVICE, RING, OLD, KubeEdgeOptions(namespace=namespace))
    name = manifest["metadata"]["name"]
    uid = cluster.apply(DAEMON_SETS, manifest).object["metadata"]["uid"]
    assert cluster.delete(DAEMON_SETS, name, namespace, uid="00000000-0000-0000-0000-000000000000") is False
    assert cluster.delete(DAEMON_SETS, name, namespace, uid=uid) is True
    until(lambda: cluster.get(DAEMON_SETS, name, namespace) is None, "it is gone")


@pytest.mark.usefixtures("kserve")
def test_an_inference_service_is_installed_changed_and_gone(cluster: KubernetesCluster, namespace: str) -> None:
    target = KServeTarget(lambda _: cluster, {RING: [cluster.name]}, KServeOptions(namespace=namespace))
    before = ours(cluster)
    assert target.switch(at_rest()).state == "done"
    assert target.switch(at_rest()).changed == 0
    assert target.switch(moving()).changed == 1
    assert target.revert(at_rest()).changed == 1
    assert target.uninstall() == 1
    until(lambda: ours(cluster) == before, "nothing is left")


@runs
@pytest.mark.usefixtures("kserve")
def test_an_inference_service_serves(cluster: KubernetesCluster, namespace: str) -> None:
    target = KServeTarget(lambda _: cluster, {RING: [cluster.name]}, KServeOptions(namespace=namespace))
    try:
        target.switch(at_rest())
        until(lambda: target.observe(at_rest()).switched == 1, "the site serves the release")
    finally:
        target.uninstall()
