"""Keel's annotations go on plain Deployments, and on nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from edgeloop.clients.cluster import Manifest
from edgeloop.fleet.targets.keel import KeelOptions, NotForKeel, with_keel
from tests.contract.models.strict import faults
from tests.unit.fleet.targets.kept_manifests import made


def deployment(image: str = "registry.example.com/wine:stable", **meta: Any) -> Manifest:
    labels = {"app": "wine"}
    pod = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "main", "image": image}]}}
    spec = {"selector": {"matchLabels": labels}, "template": pod}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "wine"} | meta, "spec": spec}


def test_a_plain_deployment_is_followed() -> None:
    before = deployment(annotations={"theirs": "1"})
    after = with_keel(before, KeelOptions(approvals=2))
    assert after["metadata"]["annotations"] == {
        "theirs": "1",
        "keel.sh/policy": "force",
        "keel.sh/trigger": "poll",
        "keel.sh/pollSchedule": "@every 10m",
        "keel.sh/matchTag": "true",
        "keel.sh/approvals": "2",
    }
    assert before["metadata"]["annotations"] == {"theirs": "1"}
    assert faults(after) == []


def test_only_a_forced_policy_asks_for_the_same_tag() -> None:
    found = with_keel(deployment(), KeelOptions(policy="patch"))["metadata"]["annotations"]
    assert found["keel.sh/policy"] == "patch"
    assert "keel.sh/matchTag" not in found


@pytest.mark.parametrize(
    ("manifest", "words"),
    [
        (made()["inferenceservice-predictor"], "for plain Deployments only"),
        (made()["daemonset-predictor"], "for plain Deployments only"),
        (deployment(ownerReferences=[{"kind": "InferenceService"}]), "its owner puts back"),
        (deployment(f"registry.example.com/wine@sha256:{'a' * 64}"), "is one image for ever: name a tag"),
    ],
    ids=["inferenceservice", "daemonset", "owned", "digest"],
)
def test_nothing_else_is(manifest: Manifest, words: str) -> None:
    with pytest.raises(NotForKeel, match=words):
        with_keel(manifest)
