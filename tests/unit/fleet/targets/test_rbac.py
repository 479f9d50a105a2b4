"""The rights in infra/k8s/rbac are those of the calls that the targets make over a rollout's life: none lacks, none is
over."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from edgeloop.clients.cluster import Call, ClusterDenied
from edgeloop.fleet.targets.kserve import KServeTarget
from edgeloop.fleet.targets.kubeedge import KubeEdgeTarget
from edgeloop.fleet.targets.kubeedge_manifests import KubeEdgeOptions
from edgeloop.fleet.targets.protocol import Target
from tests.conftest import ROOT, need
from tests.contract.models.strict import faults
from tests.unit.fleet.targets.edge import EdgeCluster, at_rest, moving, staging
from tests.unit.fleet.targets.sites import Site

RBAC = ROOT / "infra" / "k8s" / "rbac"
#: Verb, group, resource, and the namespace of what is in one; the name where a rule names objects.
Right = tuple[str, str, str, str | None, str | None]


@cache
def documents(name: str) -> tuple[dict[str, Any], ...]:
    return tuple(yaml.safe_load_all((RBAC / f"{name}.yaml").read_text(encoding="utf-8")))


def granted(name: str) -> set[Right]:
    """What a file allows."""
    found: set[Right] = set()
    for role in documents(name):
        space = role["metadata"].get("namespace")
        for rule in role.get("rules", []):
            for group, resource, verb in _product(rule):
                found |= {(verb, group, resource, space, who) for who in rule.get("resourceNames", [None])}
    return found


def _product(rule: dict[str, list[str]]) -> Iterable[tuple[str, str, str]]:
    return [(g, r, v) for g in rule["apiGroups"] for r in rule["resources"] for v in rule["verbs"]]


def allows(rights: set[Right]) -> Callable[[Call], bool]:
    def may(call: Call) -> bool:
        return any(right in rights for right in _rights(call))

    return may


def _rights(call: Call) -> list[Right]:
    """Those of which one allows the call: by any name, or by this one."""
    about = (call.verb, call.group, call.resource, call.namespace)
    return [(*about, None), (*about, call.name)]


def live(target: Target, uninstall: Callable[[], int], run: Callable[[], None]) -> None:
    """All that a rollout asks of a target."""
    for wave in (at_rest(), staging(), moving()):
        target.plan(wave)
        assert target.stage(wave).state == "done"
        assert target.switch(wave).state == "done"
        target.observe(wave)
        run()
        target.observe(wave)
    assert target.revert(at_rest()).state == "done"
    uninstall()


def kubeedge(rights: set[Right] | None = None) -> list[Call]:
    cluster = EdgeCluster(may=allows(rights) if rights is not None else lambda _: True)
    target = KubeEdgeTarget(cluster, KubeEdgeOptions(groups=True))
    for name in ("edge-0", "edge-1"):
        cluster.node(name, group="edgeloop-ring-0")

    def run() -> None:
        cluster.pull()
        cluster.run()

    live(target, target.uninstall, run)
    return cluster.calls


def kserve(rights: set[Right] | None = None) -> list[Call]:
    site = Site("north", may=allows(rights) if rights is not None else lambda _: True)
    target = KServeTarget(lambda _: site, {0: ["north"]})
    live(target, target.uninstall, site.run)
    return site.calls


LIVES: dict[str, Callable[[set[Right] | None], list[Call]]] = {"kubeedge": kubeedge, "kserve": kserve}


@pytest.mark.parametrize("name", LIVES)
def test_the_rights_suffice(name: str) -> None:
    LIVES[name](granted(name))


@pytest.mark.parametrize("name", LIVES)
def test_no_right_is_over(name: str) -> None:
    used = {right for call in LIVES[name](None) for right in _rights(call)}
    assert granted(name) - used == set()


@pytest.mark.parametrize("name", LIVES)
def test_each_right_is_needed(name: str) -> None:
    for right in granted(name):
        with pytest.raises((ClusterDenied, AssertionError)):
            LIVES[name](granted(name) - {right})


def files() -> list[Path]:
    return sorted(path for path in RBAC.glob("*.yaml") if path.name != "kustomization.yaml")


@pytest.mark.parametrize("path", files(), ids=lambda p: p.name)
def test_true_to_the_models(path: Path) -> None:
    for document in documents(path.stem):
        assert faults(document) == [], document["metadata"]["name"]


def test_nothing_is_granted_by_a_star_and_no_secret_and_no_way_into_pods() -> None:
    for name in LIVES:
        for verb, group, resource, _, _ in granted(name):
            assert "*" not in verb + group + resource
            assert resource not in ("secrets", "pods/exec", "pods/attach", "serviceaccounts/token")


def test_every_role_is_bound_to_the_account_and_no_other() -> None:
    account = next(d for d in documents("account"))
    who = [{"kind": "ServiceAccount", "name": account["metadata"]["name"], "namespace": "edgeloop"}]
    for name in LIVES:
        kinds = {(d["kind"], d["metadata"].get("namespace"), d["metadata"]["name"]): d for d in documents(name)}
        for kind, space, role in [key for key in kinds if key[0] in ("Role", "ClusterRole")]:
            binding = kinds[f"{kind}Binding", space, role]
            assert (binding["roleRef"]["kind"], binding["roleRef"]["name"]) == (kind, role)
            assert binding["subjects"] == who


def test_the_whole_can_be_applied_and_the_worker_asks_for_its_token(tmp_path: Path) -> None:
    need(shutil.which("kubectl") is not None, "kubectl is not on PATH: install the Kubernetes client (kubectl)")
    overlay = ROOT / "infra" / "k8s"
    folder = tmp_path / "overlay"
    shutil.copytree(overlay, folder)
    own = {"resources": ["base", "rbac"], "components": ["rbac/worker"]}
    (folder / "kustomization.yaml").write_text(json.dumps(own), encoding="utf-8")
    done = subprocess.run(["kubectl", "kustomize", folder], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    built = [d for d in yaml.safe_load_all(done.stdout) if d["kind"] in ("Deployment", "DaemonSet")]
    pods = {d["metadata"]["name"]: d["spec"]["template"]["spec"] for d in built}
    assert pods["worker"]["serviceAccountName"] == "edgeloop-rollout"
    assert [name for name, pod in pods.items() if pod["automountServiceAccountToken"]] == ["worker"]
