"""What can go wrong between the client and an API server, and what a kubeconfig may hold."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edgeloop.clients.cluster import (
    DAEMON_SETS,
    NODES,
    ClusterDenied,
    ClusterUnavailable,
    RefusedManifest,
    UnknownContext,
)
from edgeloop.clients.cluster_kubernetes import IN_CLUSTER, KubernetesCluster, connect
from edgeloop.clients.cluster_memory import MemoryCluster
from edgeloop.errors import EdgeloopError
from edgeloop.fleet.targets.kubeedge import KubeEdgeTarget
from edgeloop.fleet.targets.protocol import Observed
from tests.contract.cluster_api import Api, Body, kubeconfig, served, status
from tests.contract.test_cluster import KINDS, daemonset, node
from tests.unit.fleet.targets.edge import KINDS as EDGE_KINDS
from tests.unit.fleet.targets.edge import EdgeCluster, at_rest, moving, staging

Ask = Callable[[KubernetesCluster], object]


@pytest.fixture
def api() -> Api:
    return Api(MemoryCluster("here", KINDS), KINDS)


@pytest.fixture
def cluster(api: Api, tmp_path: Path) -> Iterator[KubernetesCluster]:
    with served(api) as address:
        yield connect("here", kubeconfig(tmp_path / "config", address))


def listed(cluster: KubernetesCluster) -> list[str]:
    return [n["metadata"]["name"] for n in cluster.list(NODES)]


def applied(cluster: KubernetesCluster) -> object:
    return cluster.apply(DAEMON_SETS, daemonset())


FAULTS: list[tuple[tuple[int, Body | bytes], type[EdgeloopError], str]] = [
    (status(401, "Unauthorized", "Unauthorized"), ClusterDenied, "credentials are not accepted: renew"),
    (status(403, "Forbidden", "daemonsets is forbidden"), ClusterDenied, "is forbidden: apply infra/k8s/rbac"),
    (status(429, "TooManyRequests", "slow down"), ClusterUnavailable, "HTTP 429, slow down: it is tried again"),
    (status(500, "InternalError", "etcd\nis away"), ClusterUnavailable, "HTTP 500, etcd is away"),
    ((503, b"<html>no"), ClusterUnavailable, "HTTP 503, <html>no"),
    (status(400, "BadRequest", "strict decoding error"), RefusedManifest, "strict decoding error: mend"),
]


@pytest.mark.parametrize(("fault", "error", "words"), FAULTS, ids=[str(f[0][0]) for f in FAULTS])
@pytest.mark.parametrize("ask", [lambda c: c.version(), listed, applied], ids=["version", "list", "apply"])
def test_refusals_are_one_line(
    api: Api, cluster: KubernetesCluster, ask: Ask, fault: tuple[int, Body | bytes], error: type[Exception], words: str
) -> None:
    api.faults = [fault]
    with pytest.raises(error, match=words) as caught:
        ask(cluster)
    assert "\n" not in str(caught.value)
    assert len(api.requests) == 1


def test_a_change_at_the_same_time_is_tried_again_later(api: Api, cluster: KubernetesCluster) -> None:
    api.faults = [None, status(409, "Conflict", "the object has been modified")]
    with pytest.raises(ClusterUnavailable, match="changed by another at the same time"):
        applied(cluster)


def test_a_list_whose_moment_is_forgotten_goes_on_behind_the_last_name(api: Api, cluster: KubernetesCluster) -> None:
    for number in range(5):
        api.cluster.edit(NODES, node(f"edge-{number}"))
    expired = status(410, "Expired", "too old", metadata={"continue": "2"})
    api.faults = [None, expired]
    assert listed(cluster) == [f"edge-{n}" for n in range(5)]


def test_a_list_whose_place_is_forgotten_is_not_taken_for_whole(api: Api, cluster: KubernetesCluster) -> None:
    for number in range(5):
        api.cluster.edit(NODES, node(f"edge-{number}"))
    api.faults = [None, status(410, "Expired", "too old")]
    with pytest.raises(ClusterUnavailable, match="HTTP 410"):
        listed(cluster)


def test_labels_are_escaped(api: Api, cluster: KubernetesCluster) -> None:
    list(cluster.list(NODES, labels={"edgeloop/ring": "0", "a": "b"}))
    assert api.requests == ["GET /api/v1/nodes?limit=500&labelSelector=a%3Db%2Cedgeloop%2Fring%3D0"]


def test_a_server_that_is_away(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"http://127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(ClusterUnavailable, match="cluster here does not answer"):
        connect("here", kubeconfig(tmp_path / "config", address)).version()


def test_a_token_that_is_not_accepted(api: Api, tmp_path: Path) -> None:
    with served(api) as address:
        cluster = connect("there", kubeconfig(tmp_path / "config", address, token="old"))
        with pytest.raises(ClusterDenied, match="cluster there"):
            cluster.get(NODES, "edge-0")


def test_without_a_name_the_current_context_is_taken(tmp_path: Path) -> None:
    assert connect(None, kubeconfig(tmp_path / "config", "http://127.0.0.1:1")).name == "here"


def test_a_context_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UnknownContext, match="no context 'west', only here, there: name one"):
        connect("west", kubeconfig(tmp_path / "config", "http://127.0.0.1:1"))


@pytest.mark.parametrize("text", ["", "[]", "{", "contexts: 1", "a: b"])
def test_a_kubeconfig_that_is_none(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UnknownContext) as caught:
        connect("here", path)
    assert "\n" not in str(caught.value)


def test_no_kubeconfig(tmp_path: Path) -> None:
    with pytest.raises(UnknownContext, match="kubeconfig cannot be read"):
        connect("here", tmp_path / "none")


def test_in_cluster_outside_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(UnknownContext, match="run inside a pod"):
        connect(IN_CLUSTER)


def test_the_kubeconfig_is_left_as_it_is(api: Api, tmp_path: Path) -> None:
    with served(api) as address:
        path = kubeconfig(tmp_path / "config", address)
        before = path.read_bytes()
        connect("there", path).version()
    assert path.read_bytes() == before


def test_a_ring_lives_its_life_over_http(tmp_path: Path) -> None:
    edge = EdgeCluster()
    with served(Api(edge, list(EDGE_KINDS))) as address:
        cluster = connect("here", kubeconfig(tmp_path / "config", address))
        target = KubeEdgeTarget(cluster)
        before = edge.objects()
        for wave in (at_rest(), staging(), moving()):
            target.stage(wave)
            assert target.switch(wave).state == "done"
            edge.pull()
            edge.run()
        assert target.observe(moving()) == Observed(2, 2, 2, 0, 0)
        assert target.revert(at_rest()).changed == 1
        assert target.plan(at_rest()).lines == ()
        assert target.uninstall() == 1
        assert {kind for kind, _, _ in edge.objects() - before} == {"Pod"}
