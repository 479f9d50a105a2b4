"""An edge cluster for tests: nodes, and a stand-in for the controllers of DaemonSets and of pre-pull jobs."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import Any

from edgeloop.clients.cluster import DAEMON_SETS, NODES, PODS, Call, Kind, Manifest
from edgeloop.clients.cluster_memory import MemoryCluster
from edgeloop.fleet.targets.kubeedge_manifests import EDGE, NODE_GROUPS, PREPULL_JOBS
from edgeloop.fleet.targets.protocol import Next, ReleaseRef, Wave
from edgeloop.samples.cohorts import EVERYONE, NOBODY

KINDS: tuple[Kind, ...] = (DAEMON_SETS, NODES, PODS, NODE_GROUPS, PREPULL_JOBS)
SERVING = f"registry.example.com/serving@sha256:{'f' * 64}"


def release(letter: str, **images: str) -> ReleaseRef:
    """A release ``letter`` with an image of each kind, unless ``images`` are given."""
    kinds = ("predictor", "model", "savedmodel")
    known = images or {kind: f"registry.example.com/wine/{kind}@sha256:{letter * 64}" for kind in kinds}
    return ReleaseRef(f"sha256:{letter * 64}", f"{ord(letter) - ord('a') + 1}", known)


OLD, NEW = release("a"), release("b")


def at_rest(of: ReleaseRef | None = OLD, ring: int = 0) -> Wave:
    return Wave("wine-rater", ring, of)


def moving(below: str = EVERYONE, to: ReleaseRef = NEW, ring: int = 0) -> Wave:
    return Wave("wine-rater", ring, OLD, Next(to, "salt", below))


def staging(to: ReleaseRef = NEW) -> Wave:
    return moving(NOBODY, to)


class EdgeCluster(MemoryCluster):
    """Memory with nodes ``edge-0`` …, half of them in ring 0 and half in ring 1."""

    def __init__(self, nodes: int = 4, may: Callable[[Call], bool] = lambda _: True, **more: Any) -> None:
        super().__init__("west", KINDS, may=may, **more)
        for number in range(nodes):
            self.node(f"edge-{number}", ring=number * 2 // nodes)

    def node(self, name: str, ring: int = 0, ready: bool = True, group: str | None = None) -> None:
        known = {EDGE: "", "edgeloop/ring": str(ring), "kubernetes.io/arch": "amd64"}
        known |= {"apps.kubeedge.io/belonging-to": group} if group else {}
        self.edit(NODES, {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": known}}, "kubelet")
        self.online(name, ready)

    def online(self, name: str, ready: bool) -> None:
        self.put_status(NODES, name, None, {"conditions": [{"type": "Ready", "status": str(ready)}]})

    def pull(self, broken: Iterable[str] = ()) -> None:
        """All pre-pull jobs end; nodes that are away fail, and all nodes an image with a ``broken`` name."""
        for job in _own(self, PREPULL_JOBS):
            template = job["spec"]["imagePrePullTemplate"]
            is_bad = any(text in image for text in broken for image in template["images"])
            statuses = [
                {"nodeName": n, "phase": "Failure" if is_bad or not self._is_online(n) else "Successful"}
                for n in template["nodeNames"]
            ]
            phase = {"phase": "Complated", "nodeStatus": statuses}
            if "status" not in job:
                self.put_status(PREPULL_JOBS, job["metadata"]["name"], None, phase)

    def run(self, broken: Iterable[str] = ()) -> None:
        """All DaemonSets roll out to the nodes that are online; pods of images with a ``broken`` name crash."""
        for one in _own(self, DAEMON_SETS):
            self._run(one, broken)

    def _run(self, daemonset: Manifest, broken: Iterable[str]) -> None:
        template, name = daemonset["spec"]["template"], daemonset["metadata"]["name"]
        wanted = template["spec"]["nodeSelector"].items()
        nodes = [n["metadata"]["name"] for n in _own(self, NODES) if wanted <= n["metadata"]["labels"].items()]
        is_bad = any(text in c["image"] for text in broken for c in template["spec"]["containers"])
        ready = 0
        for node in filter(self._is_online, nodes):
            self._pod(f"{name}-{node}", node, template, is_bad)
            ready += not is_bad
        counts = ("updatedNumberScheduled", "numberReady", "numberAvailable")
        seen = {"observedGeneration": daemonset["metadata"]["generation"], "desiredNumberScheduled": len(nodes)}
        self.put_status(DAEMON_SETS, name, "edgeloop", seen | dict.fromkeys(counts, ready))

    def _pod(self, name: str, node: str, template: Manifest, is_bad: bool) -> None:
        meta = {"name": name, "namespace": "edgeloop", "labels": template["metadata"]["labels"]}
        spec = {"nodeName": node, "containers": template["spec"]["containers"]}
        self.edit(PODS, {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec}, "controller")
        waiting = {"reason": "CrashLoopBackOff", "message": "back-off\nrestarting"} if is_bad else {}
        state = [{"name": "predictor", "state": {"waiting": waiting} if is_bad else {"running": {}}}]
        ready = [{"type": "Ready", "status": str(not is_bad)}]
        self.put_status(PODS, name, "edgeloop", {"conditions": ready, "containerStatuses": state})

    def _is_online(self, node: str) -> bool:
        return bool(self._objects[NODES, None, node]["status"]["conditions"][0]["status"] == "True")


def _own(cluster: MemoryCluster, kind: Kind) -> list[Manifest]:
    """What there is, without it counting as a call of ours."""
    return [copy.deepcopy(cluster._objects[key]) for key in sorted(k for k in cluster._objects if k[0] == kind)]


def kept(cluster: MemoryCluster, kind: Kind) -> list[Manifest]:
    """All objects of a kind."""
    return _own(cluster, kind)
