"""What every cluster does, the one in memory and the client over HTTP alike."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from edgeloop.clients.cluster import (
    DAEMON_SETS,
    NODES,
    PODS,
    Cluster,
    FieldConflict,
    Kind,
    Manifest,
    RefusedManifest,
    UnknownKind,
)
from edgeloop.clients.cluster_kubernetes import connect
from edgeloop.clients.cluster_memory import MemoryCluster
from tests.contract.cluster_api import Api, kubeconfig, served

KINDS = [DAEMON_SETS, NODES, PODS]
LACKING = Kind("example.com", "v1", "widgets", "Widget")


@dataclass
class Both:
    """A cluster, and the memory behind it."""

    cluster: Cluster
    memory: MemoryCluster


@pytest.fixture(params=["memory", "http"])
def both(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Both]:
    memory = MemoryCluster("here", KINDS)
    if request.param == "memory":
        yield Both(memory, memory)
        return
    with served(Api(memory, KINDS)) as address:
        yield Both(connect("here", kubeconfig(tmp_path / "config", address)), memory)


def daemonset(image: str = "a", name: str = "web", **container: Any) -> Manifest:
    labels = {"app": name}
    pod = {"containers": [{"name": "main", "image": image} | container]}
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": name, "namespace": "edgeloop", "labels": labels},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": pod},
        },
    }


def node(name: str, **labels: str) -> Manifest:
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}}


def get(both: Both) -> Manifest:
    found = both.cluster.get(DAEMON_SETS, "web", "edgeloop")
    assert found
    return found


def image(found: Manifest) -> str:
    return str(found["spec"]["template"]["spec"]["containers"][0]["image"])


def test_version(both: Both) -> None:
    assert both.cluster.version() == (1, 35)


def test_an_object_that_is_not_there(both: Both) -> None:
    assert both.cluster.get(DAEMON_SETS, "web", "edgeloop") is None
    assert both.cluster.delete(DAEMON_SETS, "web", "edgeloop") is False


def test_applied_once_more_changes_nothing(both: Both) -> None:
    first = both.cluster.apply(DAEMON_SETS, daemonset())
    again = both.cluster.apply(DAEMON_SETS, daemonset())
    assert (first.changed, again.changed) == (True, False)
    assert again.object["metadata"]["resourceVersion"] == first.object["metadata"]["resourceVersion"]


def test_a_change_counts_a_generation_and_keeps_the_identity(both: Both) -> None:
    first = both.cluster.apply(DAEMON_SETS, daemonset()).object["metadata"]
    after = both.cluster.apply(DAEMON_SETS, daemonset("b"))
    meta = after.object["metadata"]
    assert after.changed
    assert image(get(both)) == "b"
    assert (meta["uid"], meta["generation"]) == (first["uid"], first["generation"] + 1)


@pytest.mark.parametrize("there", [False, True])
def test_a_dry_run_says_what_would_be(both: Both, there: bool) -> None:
    if there:
        both.cluster.apply(DAEMON_SETS, daemonset())
    found = both.cluster.apply(DAEMON_SETS, daemonset("b"), dry_run=True)
    assert found.changed
    assert image(found.object) == "b"
    live = both.cluster.get(DAEMON_SETS, "web", "edgeloop")
    assert (image(live) if live else None) == ("a" if there else None)


def test_a_dry_run_of_what_is_there_changes_nothing(both: Both) -> None:
    both.cluster.apply(DAEMON_SETS, daemonset())
    assert not both.cluster.apply(DAEMON_SETS, daemonset(), dry_run=True).changed


def test_fields_of_others_stay(both: Both) -> None:
    both.cluster.apply(DAEMON_SETS, daemonset())
    foreign = daemonset() | {"metadata": {"name": "web", "namespace": "edgeloop", "annotations": {"theirs": "1"}}}
    both.memory.edit(DAEMON_SETS, foreign)
    both.cluster.apply(DAEMON_SETS, daemonset("b"))
    assert get(both)["metadata"]["annotations"] == {"theirs": "1"}


def test_a_field_of_anothers_is_reported_and_nothing_changed(both: Both) -> None:
    both.cluster.apply(DAEMON_SETS, daemonset())
    both.memory.edit(DAEMON_SETS, daemonset("theirs"), manager="kubectl-edit")
    before = get(both)
    with pytest.raises(FieldConflict, match=r"image is managed by 'kubectl-edit': let it go") as caught:
        both.cluster.apply(DAEMON_SETS, daemonset("b"))
    assert caught.value.manager == "kubectl-edit"
    assert caught.value.fields == ('.spec.template.spec.containers[name="main"].image',)
    assert get(both) == before


def test_a_field_of_anothers_with_the_same_value_is_shared(both: Both) -> None:
    both.cluster.apply(DAEMON_SETS, daemonset())
    both.memory.edit(DAEMON_SETS, daemonset("theirs"))
    assert image(both.cluster.apply(DAEMON_SETS, daemonset("theirs")).object) == "theirs"


def test_a_field_left_out_goes_unless_another_has_it(both: Both) -> None:
    env = [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]
    both.cluster.apply(DAEMON_SETS, daemonset(env=env, tty=True))
    both.memory.edit(DAEMON_SETS, daemonset(env=env, workingDir="/"))
    both.cluster.apply(DAEMON_SETS, daemonset(env=env[:1]))
    container = get(both)["spec"]["template"]["spec"]["containers"][0]
    assert container == {"name": "main", "image": "a", "env": [{"name": "A", "value": "1"}], "workingDir": "/"}


def test_a_shared_field_stays_when_one_lets_go_of_it(both: Both) -> None:
    both.cluster.apply(DAEMON_SETS, daemonset())
    both.memory.edit(DAEMON_SETS, daemonset(workingDir="/"))
    both.cluster.apply(DAEMON_SETS, daemonset(workingDir="/"))
    both.cluster.apply(DAEMON_SETS, daemonset())
    assert get(both)["spec"]["template"]["spec"]["containers"][0]["workingDir"] == "/"


def test_what_cannot_change_is_refused(both: Both) -> None:
    both.cluster.apply(DAEMON_SETS, daemonset())
    changed = daemonset()
    changed["spec"]["selector"] = {"matchLabels": {"app": "other"}}
    with pytest.raises(RefusedManifest, match="immutable"):
        both.cluster.apply(DAEMON_SETS, changed)


def test_lists_are_read_to_their_end_by_labels(both: Both) -> None:
    for number in range(5):
        both.memory.edit(NODES, node(f"edge-{number}", ring=str(number % 2)))
    assert [n["metadata"]["name"] for n in both.cluster.list(NODES)] == [f"edge-{n}" for n in range(5)]
    found = list(both.cluster.list(NODES, labels={"ring": "0"}))
    assert [n["metadata"]["name"] for n in found] == ["edge-0", "edge-2", "edge-4"]
    assert {n["kind"] for n in found} == {"Node"}


def test_lists_are_of_one_namespace(both: Both) -> None:
    both.cluster.apply(DAEMON_SETS, daemonset())
    assert [d["metadata"]["name"] for d in both.cluster.list(DAEMON_SETS, "edgeloop")] == ["web"]
    assert list(both.cluster.list(DAEMON_SETS, "default")) == []


def test_only_the_one_that_was_meant_is_deleted(both: Both) -> None:
    uid = both.cluster.apply(DAEMON_SETS, daemonset()).object["metadata"]["uid"]
    assert both.cluster.delete(DAEMON_SETS, "web", "edgeloop", uid="another") is False
    assert get(both)
    assert both.cluster.delete(DAEMON_SETS, "web", "edgeloop", uid=uid) is True
    assert both.cluster.get(DAEMON_SETS, "web", "edgeloop") is None


def test_a_kind_that_is_not_installed(both: Both) -> None:
    widget = {"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "w", "namespace": "edgeloop"}}
    for ask in (
        lambda: both.cluster.get(LACKING, "w", "edgeloop"),
        lambda: list(both.cluster.list(LACKING)),
        lambda: both.cluster.apply(LACKING, widget),
        lambda: both.cluster.delete(LACKING, "w", "edgeloop"),
    ):
        with pytest.raises(UnknownKind, match=r"does not know Widget of example\.com/v1: install"):
            ask()


def test_a_namespace_that_is_not_there(both: Both) -> None:
    lost = daemonset()
    lost["metadata"]["namespace"] = "nowhere"
    with pytest.raises(RefusedManifest, match="no namespace nowhere: create it"):
        both.cluster.apply(DAEMON_SETS, lost)
