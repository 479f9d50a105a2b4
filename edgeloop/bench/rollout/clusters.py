"""What a rollout on KubeEdge asks of a cluster, by kind of call: grows with rings, and with pages of 500 nodes.

The target is the real one; the cluster is in memory, and does at once what it is told.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping

from edgeloop.bench.rollout.result import ClusterCalls
from edgeloop.bench.rollout.site import SERVICE, ring_sizes
from edgeloop.clients.cluster import DAEMON_SETS, NODES, PODS, Kind, Manifest
from edgeloop.clients.cluster_kubernetes import PAGE
from edgeloop.clients.cluster_memory import MemoryCluster
from edgeloop.fleet.targets.kubeedge import KubeEdgeTarget
from edgeloop.fleet.targets.kubeedge_manifests import (
    NODE_GROUPS,
    PREPULL_JOBS,
    KubeEdgeOptions,
    node_labels,
    ring_name,
)
from edgeloop.fleet.targets.protocol import Next, ReleaseRef, Wave
from edgeloop.samples.cohorts import EVERYONE, NOBODY

_KINDS = (DAEMON_SETS, NODES, PODS, NODE_GROUPS, PREPULL_JOBS)


class PagedCluster(MemoryCluster):
    """Each page of a list is a call, as with a real one."""

    def list(
        self, kind: Kind, namespace: str | None = None, labels: Mapping[str, str] | None = None
    ) -> Iterator[Manifest]:
        found = [*super().list(kind, namespace, labels)]
        self.calls += [self.calls[-1]] * (math.ceil(len(found) / PAGE) - 1)
        return iter(found)

    def settle(self, name: str, nodes: int) -> None:
        """The ring's DaemonSet runs on all of its nodes."""
        namespace = KubeEdgeOptions().namespace
        live = self._objects[DAEMON_SETS, namespace, name]
        counts = ("desiredNumberScheduled", "updatedNumberScheduled", "numberReady", "numberAvailable")
        status = {"observedGeneration": live["metadata"]["generation"], **dict.fromkeys(counts, nodes)}
        self.put_status(DAEMON_SETS, name, namespace, status)


def count_cluster_calls(nodes: int, rings: int) -> ClusterCalls:
    """Of one rollout: each ring staged and looked at once, switched and looked at until it has settled."""
    cluster, sizes = PagedCluster("bench", _KINDS), ring_sizes(nodes, rings)
    for ring, size in enumerate(sizes):
        for number in range(size):
            _add_node(cluster, f"edge-{ring}-{number}", ring)
    target = KubeEdgeTarget(cluster)
    for ring, size in enumerate(sizes):
        target.switch(Wave(SERVICE, ring, _release("a"), nodes=size))
        cluster.settle(ring_name(SERVICE, ring), size)
    cluster.calls.clear()
    for ring, size in enumerate(sizes):
        _roll(target, cluster, ring, size)
    calls = Counter(f"{call.verb} {call.resource}" for call in cluster.calls)
    return ClusterCalls(nodes=nodes, rings=rings, calls=dict(sorted(calls.items())))


def _roll(target: KubeEdgeTarget, cluster: PagedCluster, ring: int, size: int) -> None:
    old, new = _release("a"), _release("b")
    for below, verb in ((NOBODY, target.stage), (EVERYONE, target.switch)):
        wave = Wave(SERVICE, ring, old, Next(new, "salt", below), size)
        verb(wave)
        target.observe(wave)
    cluster.settle(ring_name(SERVICE, ring), size)
    target.observe(wave)


def _add_node(cluster: MemoryCluster, name: str, ring: int) -> None:
    labels = node_labels(ring, KubeEdgeOptions())
    cluster.edit(NODES, {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}}, "kubelet")
    cluster.put_status(NODES, name, None, {"conditions": [{"type": "Ready", "status": "True"}]})


def _release(letter: str) -> ReleaseRef:
    image = f"registry.example.com/bench@sha256:{letter * 64}"
    return ReleaseRef(f"sha256:{letter * 64}", letter, dict.fromkeys(("predictor", "model", "savedmodel"), image))
