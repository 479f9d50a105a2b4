"""Rings on KubeEdge: what a ring should run is one DaemonSet, and KubeEdge brings it to each of its nodes.

Reads and writes per ring are a handful, whatever its size; lists of nodes and pods are read in pages of 500, only while
a ring is on the move.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from edgeloop.clients.cluster import DAEMON_SETS, NODES, PODS, Cluster, Manifest
from edgeloop.fleet.targets.diff import readable
from edgeloop.fleet.targets.kubeedge_manifests import (
    NAMESPACE,
    NODE_GROUPS,
    PREPULL_JOBS,
    BadOptions,
    KubeEdgeOptions,
    daemonset,
    group_name,
    node_group,
    node_labels,
    prepull_jobs,
    ring_labels,
    ring_name,
)
from edgeloop.fleet.targets.owned import apply_own, delete_own, outcome
from edgeloop.fleet.targets.pod_states import is_ready, is_up, trouble
from edgeloop.fleet.targets.pods import MANAGED, RELEASE, SERVICE, goal, named, release_label
from edgeloop.fleet.targets.protocol import Diff, Observed, Outcome, ReleaseRef, Wave
from edgeloop.samples.cohorts import NOBODY

#: Where image volumes are on by default.
_IMAGE_VOLUMES = (1, 35)
#: How often a node's pull is tried: one that was offline at the time fails at once.
PULLS = 3


@dataclass(frozen=True)
class _Pulls:
    """What the ring's pre-pull jobs say."""

    jobs: int = 0
    busy: frozenset[str] = frozenset()
    """Nodes that need no further job: it is done there, under way, or was tried often enough."""
    done: frozenset[str] = frozenset()
    failed: Mapping[str, str] = field(default_factory=dict)
    """Reasons by node, where no further try is made."""


class KubeEdgeTarget:
    """All methods as in :class:`~edgeloop.fleet.targets.protocol.Target`."""

    name = "kubeedge"

    def __init__(self, cluster: Cluster, options: KubeEdgeOptions | None = None) -> None:
        self._cluster = cluster
        self._options = options or KubeEdgeOptions()

    def plan(self, wave: Wave) -> Diff:
        """By a dry run, so that conflicts and refusals show before anything is changed."""
        self._check()
        goal(wave)
        release = _coming(wave)
        if release is None:
            return Diff(warnings=(f"ring {wave.ring} of {wave.service}: no release is wanted, nothing is changed",))
        after = daemonset(wave.service, wave.ring, release, self._options)
        live = self._daemonset(wave)
        applied = apply_own(self._cluster, DAEMON_SETS, after, live, dry=True)
        lines = readable(live, applied.object) if applied.changed else ()
        return Diff((*self._group_lines(wave), *lines), self._warnings(wave))

    def _check(self) -> None:
        if self._options.model_volume == "image" and self._cluster.version() < _IMAGE_VOLUMES:
            raise BadOptions(
                f"cluster {self._cluster.name} is older than Kubernetes 1.35, where image volumes are on by default:"
                " use model_volume copy"
            )

    def _group_lines(self, wave: Wave) -> tuple[str, ...]:
        if not self._options.groups or self._cluster.get(NODE_GROUPS, group_name(wave.ring)):
            return ()
        return (f"+ NodeGroup {group_name(wave.ring)}: new",)

    def _warnings(self, wave: Wave) -> tuple[str, ...]:
        count = sum(1 for _ in self._nodes(wave))
        found = [] if count else [f"ring {wave.ring}: no node has its labels: {self._selector(wave)}"]
        if count > self._options.node_limit:
            found.append(f"ring {wave.ring} has {count} nodes, CloudCore's nodeLimit is {self._options.node_limit}")
        return tuple(found)

    def _selector(self, wave: Wave) -> str:
        return ",".join(f"{key}={value}" for key, value in node_labels(wave.ring, self._options).items())

    def stage(self, wave: Wave) -> Outcome:
        """Jobs pull the images onto the nodes that are online; those that come back later pull by themselves."""
        following = wave.next
        if following is None or following.below != NOBODY or not self._options.prepull:
            return Outcome("done")
        return outcome(lambda: self._stage(wave, following.release))

    def _stage(self, wave: Wave, release: ReleaseRef) -> int:
        changed = self._apply_group(wave) + self._sweep(wave, keep=release)
        pulls = self._pulls(wave, release)
        ready = {node["metadata"]["name"] for node in self._nodes(wave) if is_ready(node)}
        lacking = sorted(ready - pulls.busy)
        for job in prepull_jobs(wave.service, wave.ring, release, lacking, self._options, pulls.jobs):
            changed += self._cluster.apply(PREPULL_JOBS, job).changed
        return changed

    def switch(self, wave: Wave) -> Outcome:
        """One apply; jobs of releases that are not on their way go."""
        return outcome(lambda: self._switch(wave))

    def _switch(self, wave: Wave) -> int:
        release = goal(wave)
        if release is None:
            return 0
        self._check()
        manifest = daemonset(wave.service, wave.ring, release, self._options)
        changed = self._apply_group(wave)
        changed += apply_own(self._cluster, DAEMON_SETS, manifest, self._daemonset(wave)).changed
        staged = wave.next.release if wave.next and wave.next.below == NOBODY else None
        return changed + self._sweep(wave, keep=staged)

    def revert(self, wave: Wave) -> Outcome:
        """As ``switch``: the manifest of a release follows from the release."""
        return self.switch(wave)

    def observe(self, wave: Wave) -> Observed:
        """By the DaemonSet alone while it says that all is well, else node by node."""
        release = _coming(wave)
        live = self._daemonset(wave)
        settled = _settled(live, release) if live and release else None
        if settled is not None:
            return Observed(settled, settled, settled, 0, 0)
        return self._look(wave, release)

    def _look(self, wave: Wave, release: ReleaseRef | None) -> Observed:
        online = {node["metadata"]["name"]: is_ready(node) for node in self._nodes(wave)}
        pulls = self._pulls(wave, release) if release and self._options.prepull else _Pulls()
        up: set[str] = set()
        failed = dict(pulls.failed)
        for pod in self._pods(wave, release):
            node = pod["spec"].get("nodeName", "")
            if is_up(pod):
                up.add(node)
            elif reason := trouble(pod):
                failed[node] = reason
        here = {node for node, is_online in online.items() if is_online}
        bad = sorted((failed.keys() & here) - up)
        return Observed(
            nodes=len(online),
            # Without pre-pull jobs nothing is waited for.
            staged=len(here & (pulls.done | up)) if self._options.prepull else len(here),
            switched=len(here & up),
            failed=len(bad),
            offline=len(online) - len(here),
            reason=f"{bad[0]}: {failed[bad[0]]}" if bad else "",
        )

    def uninstall(self, service: str | None = None) -> int:
        """Delete all of a service's objects, or all of ours with the node groups; returns how many that were."""
        labels = {**MANAGED, **({SERVICE: named(service)} if service else {})}
        found = list(self._cluster.list(DAEMON_SETS, self._options.namespace, labels))
        gone = delete_own(self._cluster, DAEMON_SETS, found)
        if self._options.prepull:
            mine = {**labels, NAMESPACE: self._options.namespace}
            gone += delete_own(self._cluster, PREPULL_JOBS, list(self._cluster.list(PREPULL_JOBS, labels=mine)))
        if self._options.groups and service is None:
            gone += delete_own(self._cluster, NODE_GROUPS, list(self._cluster.list(NODE_GROUPS, labels=MANAGED)))
        return gone

    def _daemonset(self, wave: Wave) -> Manifest | None:
        return self._cluster.get(DAEMON_SETS, ring_name(wave.service, wave.ring), self._options.namespace)

    def _nodes(self, wave: Wave) -> Iterator[Manifest]:
        return self._cluster.list(NODES, labels=node_labels(wave.ring, self._options))

    def _pods(self, wave: Wave, release: ReleaseRef | None) -> Iterator[Manifest]:
        if release is None:
            return iter(())
        labels = {**ring_labels(wave.service, wave.ring), RELEASE: release_label(release)}
        return self._cluster.list(PODS, self._options.namespace, labels)

    def _apply_group(self, wave: Wave) -> int:
        if not self._options.groups:
            return 0
        live = self._cluster.get(NODE_GROUPS, group_name(wave.ring))
        return int(apply_own(self._cluster, NODE_GROUPS, node_group(wave.ring, self._options), live).changed)

    def _jobs(self, wave: Wave) -> list[Manifest]:
        labels = {**ring_labels(wave.service, wave.ring), NAMESPACE: self._options.namespace}
        return list(self._cluster.list(PREPULL_JOBS, labels=labels))

    def _sweep(self, wave: Wave, keep: ReleaseRef | None) -> int:
        if not self._options.prepull:
            return 0
        kept = release_label(keep) if keep else None
        old = [job for job in self._jobs(wave) if job["metadata"]["labels"].get(RELEASE) != kept]
        return delete_own(self._cluster, PREPULL_JOBS, old)

    def _pulls(self, wave: Wave, release: ReleaseRef) -> _Pulls:
        label = release_label(release)
        return _read_pulls([job for job in self._jobs(wave) if job["metadata"]["labels"].get(RELEASE) == label])


def _coming(wave: Wave) -> ReleaseRef | None:
    """The release that the ring runs or is moving to."""
    return wave.next.release if wave.next else wave.release


def _read_pulls(jobs: list[Manifest]) -> _Pulls:
    tries: Counter[str] = Counter()
    faults: dict[str, list[str]] = {}
    done: set[str] = set()
    for job in jobs:
        tries.update(job["spec"]["imagePrePullTemplate"]["nodeNames"])
        for one in (job.get("status") or {}).get("nodeStatus") or []:
            if one.get("phase") == "Successful":
                done.add(one["nodeName"])
            elif one.get("phase") == "Failure":
                faults.setdefault(one["nodeName"], []).append(one.get("reason") or "no reason given")
    lost = {node for node, found in faults.items() if node not in done and len(found) >= tries[node]}
    failed = {node: f"image not pulled: {faults[node][-1]}" for node in lost if tries[node] >= PULLS}
    return _Pulls(len(jobs), frozenset(tries.keys() - lost | failed.keys()), frozenset(done), failed)


def _settled(live: Manifest, release: ReleaseRef) -> int | None:
    """How many nodes run the release, if the DaemonSet says that all of them do and are available; else None."""
    status = live.get("status") or {}
    wanted = status.get("desiredNumberScheduled", 0)
    is_seen = status.get("observedGeneration", 0) >= live["metadata"]["generation"]
    is_it = live["spec"]["template"]["metadata"].get("annotations", {}).get(RELEASE) == release.digest
    counts = {status.get(key, 0) for key in ("updatedNumberScheduled", "numberReady", "numberAvailable")}
    return wanted if wanted and is_seen and is_it and counts == {wanted} else None
