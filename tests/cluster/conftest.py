"""The cluster that KUBECONFIG names, with an own namespace; without one these tests are skipped, in CI as well.

They are written for KubeEdge with two edge nodes, and for KServe where its controller runs. What they change: a
namespace of their own, the label ``edgeloop/ring`` of two edge nodes, and objects labelled as edgeloop's; all of it is
taken back.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from edgeloop.clients.cluster import DEPLOYMENTS, NODES
from edgeloop.clients.cluster_kubernetes import KubernetesCluster, connect
from edgeloop.fleet.targets.kserve_versions import CONTROLLER
from edgeloop.fleet.targets.kubeedge_manifests import EDGE
from edgeloop.fleet.targets.pod_states import is_ready

#: A ring that no fleet has.
RING = 990


def kubectl(*arguments: str, stdin: str | None = None) -> str:
    """What kubectl prints."""
    done = subprocess.run(["kubectl", *arguments], input=stdin, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="session")
def cluster() -> KubernetesCluster:
    if not os.environ.get("KUBECONFIG"):
        pytest.skip("KUBECONFIG names no cluster: set it to run the tests that need one")
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not on PATH: install the Kubernetes client (kubectl)")
    return connect(os.environ.get("EDGELOOP_CLUSTER_CONTEXT"))


@pytest.fixture
def namespace(cluster: KubernetesCluster) -> Iterator[str]:
    name = f"edgeloop-test-{secrets.token_hex(4)}"
    kubectl("--context", cluster.name, "create", "namespace", name)
    yield name
    kubectl("--context", cluster.name, "delete", "namespace", name, "--wait=false")


@pytest.fixture
def edge_nodes(cluster: KubernetesCluster) -> Iterator[list[str]]:
    """Two edge nodes that are online, in ring RING."""
    every = [node for node in cluster.list(NODES, labels={EDGE: ""}) if is_ready(node)]
    free = [node["metadata"]["name"] for node in every if "edgeloop/ring" not in node["metadata"]["labels"]][:2]
    if len(free) < 2:
        pytest.skip(f"the cluster has {len(free)} edge nodes without a ring, two are needed")
    for name in free:
        kubectl("--context", cluster.name, "label", "node", name, f"edgeloop/ring={RING}")
    yield free
    for name in free:
        kubectl("--context", cluster.name, "label", "node", name, "edgeloop/ring-")


@pytest.fixture
def kserve(cluster: KubernetesCluster) -> None:
    if cluster.get(DEPLOYMENTS, CONTROLLER, "kserve") is None:
        pytest.skip("the cluster has no KServe in the namespace kserve")


def images() -> tuple[dict[str, str], dict[str, str]] | None:
    """Two releases' images by kind, from EDGELOOP_CLUSTER_IMAGES (a JSON list of two mappings), if they are to run."""
    told: Any = json.loads(os.environ.get("EDGELOOP_CLUSTER_IMAGES", "null"))
    return (told[0], told[1]) if told else None
