"""Rings of sites with KServe: each site is a cluster of its own, named by a context of the kubeconfig.

A site that is away is what an offline node is: it is passed over, and owed the release for when it is back.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from edgeloop.clients.cluster import DEPLOYMENTS, Cluster, Manifest
from edgeloop.errors import BadInput, Unavailable
from edgeloop.fleet.targets.diff import readable
from edgeloop.fleet.targets.kserve_manifests import (
    INFERENCE_SERVICES,
    KServeOptions,
    deployment_name,
    inference_service,
    isvc_name,
    service_labels,
)
from edgeloop.fleet.targets.kserve_versions import detect, refuse_ignored
from edgeloop.fleet.targets.owned import apply_own, delete_own, outcome
from edgeloop.fleet.targets.pod_states import condition, is_true
from edgeloop.fleet.targets.pods import MANAGED, RELEASE, goal, release_label
from edgeloop.fleet.targets.protocol import Diff, Observed, Outcome, ReleaseRef, Wave

_BLOCKED = {"BlockedByFailedLoad", "InvalidSpec"}
#: Conditions that must hold; a Deployment that was never ready has none of them.
_CONDITIONS = ("PredictorReady", "Ready")


class BadSites(BadInput):
    """The contexts of rings cannot be used."""


@dataclass(frozen=True)
class _Site:
    """How a site does with the release."""

    state: Literal["ready", "failed", "waiting", "away"]
    reason: str = ""


@dataclass
class _Rounds:
    """What came of a walk over sites."""

    changed: int = 0
    away: list[str] = field(default_factory=list)


class KServeTarget:
    """All methods as in :class:`~edgeloop.fleet.targets.protocol.Target`; ``sites`` are the contexts of each ring.

    Raises:
        BadSites: a context is in two rings.
    """

    name = "kserve"

    def __init__(
        self,
        clusters: Callable[[str], Cluster],
        sites: Mapping[int, Sequence[str]],
        options: KServeOptions | None = None,
    ) -> None:
        self._clusters = clusters
        self._sites = sites
        self._options = options or KServeOptions()
        counts = Counter(site for those in sites.values() for site in those)
        twice = sorted(site for site, count in counts.items() if count > 1)
        if twice:
            raise BadSites(f"kserve: {', '.join(twice)} is named twice: give each context one ring")

    def sites(self, ring: int) -> Sequence[str]:
        """Contexts of the ring's sites."""
        return self._sites.get(ring, ())

    def at(self, site: str) -> KServeTarget:
        """The same with this site only."""
        mine = {ring: [site] for ring, sites in self._sites.items() if site in sites}
        return KServeTarget(self._clusters, mine, self._options)

    def plan(self, wave: Wave) -> Diff:
        """Site by site, by dry runs; a site that is away is warned of."""
        goal(wave)
        release = _coming(wave)
        if release is None:
            return Diff(warnings=(f"ring {wave.ring} of {wave.service}: no release is wanted, nothing is changed",))
        lines: list[str] = []
        warnings: list[str] = []
        for site in self._of(wave):
            try:
                lines += [f"{site}: {line}" for line in self._plan(self._clusters(site), wave, release)]
            except Unavailable as error:
                warnings.append(f"{site} is away, and gets the release when it is back ({error})")
        return Diff(tuple(lines), tuple(warnings))

    def _plan(self, cluster: Cluster, wave: Wave, release: ReleaseRef) -> tuple[str, ...]:
        live = self._live(cluster, wave)
        applied = apply_own(cluster, INFERENCE_SERVICES, self._manifest(cluster, wave, release), live, dry=True)
        return readable(live, applied.object) if applied.changed else ()

    def stage(self, wave: Wave) -> Outcome:
        """Nothing: a site pulls when it switches, and keeps the old pod until the new one is ready."""
        return Outcome("done")

    def switch(self, wave: Wave) -> Outcome:
        """One InferenceService per site; after the first refusal no further site is changed."""
        rounds = _Rounds()
        found = outcome(lambda: self._switch(wave, rounds))
        if found.state == "refused":
            return Outcome("refused", found.reason, rounds.changed)
        if rounds.away and len(rounds.away) == len(self._of(wave)):
            return Outcome("later", f"all sites are away: {', '.join(rounds.away)}")
        return found

    def _switch(self, wave: Wave, rounds: _Rounds) -> int:
        release = goal(wave)
        for site in self._of(wave) if release else ():
            assert release
            cluster = self._clusters(site)
            try:
                manifest = self._manifest(cluster, wave, release)
                applied = apply_own(cluster, INFERENCE_SERVICES, manifest, self._live(cluster, wave))
                rounds.changed += applied.changed
            except Unavailable:
                rounds.away.append(site)
        return rounds.changed

    def revert(self, wave: Wave) -> Outcome:
        """As ``switch``: the manifest of a release follows from the release."""
        return self.switch(wave)

    def observe(self, wave: Wave) -> Observed:
        """Two reads per site."""
        release = _coming(wave)
        sites = {site: self._look(site, wave, release) for site in self._of(wave)}
        counts = Counter(site.state for site in sites.values())
        failed = next((f"{name}: {site.reason}" for name, site in sites.items() if site.state == "failed"), "")
        waiting = next((f"{name}: {site.reason}" for name, site in sites.items() if site.reason), "")
        # Nothing is brought near beforehand, so every site that answers is as near as it will be.
        staged = len(sites) - counts["away"]
        return Observed(len(sites), staged, counts["ready"], counts["failed"], counts["away"], failed or waiting)

    def _look(self, site: str, wave: Wave, release: ReleaseRef | None) -> _Site:
        cluster = self._clusters(site)
        try:
            service = self._live(cluster, wave)
            if service is None or release is None:
                return _Site("waiting")
            deployment = cluster.get(DEPLOYMENTS, deployment_name(wave.service), self._options.namespace)
        except Unavailable:
            return _Site("away")
        return _judge(service, deployment, release)

    def uninstall(self, service: str | None = None) -> int:
        """Delete a service's InferenceService on every site, or all of ours; returns how many that were.

        Raises:
            Unavailable: a site is away; what the others had is gone, so ask again for the rest.
        """
        labels = service_labels(service) if service else MANAGED
        gone, away = 0, None
        for site in sorted(site for those in self._sites.values() for site in those):
            cluster = self._clusters(site)
            try:
                found = list(cluster.list(INFERENCE_SERVICES, self._options.namespace, labels))
                gone += delete_own(cluster, INFERENCE_SERVICES, found)
            except Unavailable as error:
                away = error
        if away is not None:
            raise away
        return gone

    def _of(self, wave: Wave) -> Sequence[str]:
        sites = self._sites.get(wave.ring, ())
        if not sites:
            raise BadSites(f"kserve: ring {wave.ring} of {wave.service} has no site: name its contexts")
        return sites

    def _live(self, cluster: Cluster, wave: Wave) -> Manifest | None:
        return cluster.get(INFERENCE_SERVICES, isvc_name(wave.service), self._options.namespace)

    def _manifest(self, cluster: Cluster, wave: Wave, release: ReleaseRef) -> Manifest:
        """As the site's KServe will do all of it."""
        manifest = inference_service(wave.service, wave.ring, release, self._options, cluster.name)
        installed = detect(cluster, self._options.controller_namespace, self._options.version)
        refuse_ignored(manifest, installed, f"cluster {cluster.name}: {wave.service}")
        return manifest


def _coming(wave: Wave) -> ReleaseRef | None:
    """The release that the ring runs or is moving to."""
    return wave.next.release if wave.next else wave.release


def _judge(service: Manifest, deployment: Manifest | None, release: ReleaseRef) -> _Site:
    """Whether the release serves.

    The InferenceService alone cannot tell. In Standard mode its ``observedGeneration`` is that of the Deployment, and
    it stays ready with its model loaded while the old pod serves beside a new one that does not start. So the
    Deployment is asked first: whether it is of this release, and all of its pods are.
    """
    fault = _model_fault(service)
    if deployment is None or not _is_of(deployment, release):
        return _Site("waiting", fault or "KServe has not made the release's Deployment yet")
    if reason := _stuck(deployment) or (fault if _is_looked_at(service, deployment) else ""):
        return _Site("failed", reason)
    if reason := _unfinished(deployment) or _unready(service, deployment):
        return _Site("waiting", reason)
    return _Site("ready")


def _is_of(deployment: Manifest, release: ReleaseRef) -> bool:
    return bool(deployment["spec"]["template"]["metadata"]["labels"].get(RELEASE) == release_label(release))


def _is_looked_at(service: Manifest, deployment: Manifest) -> bool:
    """Whether what KServe says of the model is of this Deployment, and of none of its older pods."""
    pods = deployment.get("status") or {}
    seen = (service.get("status") or {}).get("observedGeneration", 0) >= deployment["metadata"]["generation"]
    return seen and _is_seen(deployment) and pods.get("replicas", 0) == pods.get("updatedReplicas", 0)


def _model_fault(service: Manifest) -> str:
    status = (service.get("status") or {}).get("modelStatus") or {}
    if status.get("transitionStatus") not in _BLOCKED:
        return ""
    info = status.get("lastFailureInfo") or {}
    return f"{status['transitionStatus']}: {info.get('reason', 'no reason given')}: {_line(info)}".removesuffix(": ")


def _line(told: Manifest) -> str:
    return " ".join(str(told.get("message", "")).split())[:200]


def _stuck(deployment: Manifest) -> str:
    progress = condition(deployment, "Progressing")
    if _is_seen(deployment) and progress.get("status") == "False":
        return (
            f"{progress.get('reason', 'not progressing')}: {' '.join(str(progress.get('message', '')).split())[:200]}"
        )
    return ""


def _is_seen(deployment: Manifest) -> bool:
    status = deployment.get("status") or {}
    return bool(status.get("observedGeneration", 0) >= deployment["metadata"]["generation"])


def _unfinished(deployment: Manifest) -> str:
    status, wanted = deployment.get("status") or {}, deployment["spec"].get("replicas", 1)
    counts = [status.get(key, 0) for key in ("updatedReplicas", "availableReplicas", "replicas")]
    if _is_seen(deployment) and counts == [wanted] * 3:
        return ""
    return f"{counts[0]} of {wanted} pods are of the release, {counts[1]} available, {counts[2]} in all"


def _unready(service: Manifest, deployment: Manifest) -> str:
    status = service.get("status") or {}
    lacking = [kind for kind in _CONDITIONS if not is_true(service, kind)]
    # Kept in Knative mode only; where it is, it counts.
    if condition(service, "LatestDeploymentReady").get("status", "True") != "True":
        lacking.append("LatestDeploymentReady")
    if lacking:
        return f"not {', '.join(lacking)}"
    if status.get("observedGeneration", 0) < deployment["metadata"]["generation"]:
        return "KServe has not looked at its Deployment since it changed"
    model = status.get("modelStatus") or {}
    states = model.get("states") or {}
    is_loaded = model.get("transitionStatus") == "UpToDate" and states.get("activeModelState") == "Loaded"
    return "" if is_loaded else f"model is {states.get('targetModelState') or 'not loaded'}"
