"""What pods of every target share: names and labels, the locked-down container, probes and edge-sized resources."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import ConfigDict

from edgeloop.clients.cluster import Manifest
from edgeloop.errors import BadInput
from edgeloop.fleet.targets.protocol import ReleaseRef, Wave
from edgeloop.samples.cohorts import EVERYONE, NOBODY
from edgeloop.samples.records import digest

MANAGED = {"app.kubernetes.io/managed-by": "edgeloop"}
SERVICE = "edgeloop/service"
RING = "edgeloop/ring"
RELEASE = "edgeloop/release"
#: User and group of the pods, as in the node image.
USER = 10001
_PINNED = re.compile(r"^[^\s@]+@sha256:[0-9a-f]{64}$")

ImageKind = Literal["predictor", "model", "savedmodel"]


class MissingImage(BadInput):
    """The release has no image of the kind that is to run, or it is not named by digest."""


class BatchesUnsupported(BadInput):
    """A cluster runs a ring as one; parts of it cannot run another release."""


@dataclass(frozen=True)
class Resources:
    """Requests and limits of a serving container, in the words of Kubernetes; small enough for a Raspberry Pi."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    cpu: str = "100m"
    memory: str = "192Mi"
    cpu_limit: str = "1"
    memory_limit: str = "512Mi"

    def manifest(self) -> Manifest:
        """As a container has them."""
        return {
            "requests": {"cpu": self.cpu, "memory": self.memory},
            "limits": {"cpu": self.cpu_limit, "memory": self.memory_limit},
        }


def named(*parts: str, longest: int = 63) -> str:
    """A DNS label made of the parts: at most 63 characters, and as different as the parts are."""
    whole = "-".join(parts)
    plain = re.sub(r"[^a-z0-9-]+", "-", whole.lower()).strip("-")
    if plain == whole and len(plain) <= longest:
        return plain
    tail = digest(whole.encode()).removeprefix("sha256:")[:10]
    return f"{plain[: longest - 11].rstrip('-')}-{tail}"


def release_label(release: ReleaseRef) -> str:
    """The release as a label value, which has room for half a digest."""
    return release.digest.removeprefix("sha256:")[:40]


def goal(wave: Wave) -> ReleaseRef | None:
    """The release that ``switch`` puts on the ring.

    Raises:
        BatchesUnsupported: only a part of the ring is to run the next one.
    """
    if wave.next is None or wave.next.below == NOBODY:
        return wave.release
    if wave.next.below != EVERYONE:
        raise BatchesUnsupported(
            f"ring {wave.ring} of {wave.service}: a cluster target has no batches: leave rollout.batches at [1.0]"
        )
    return wave.next.release


def image(release: ReleaseRef, kind: ImageKind, service: str = "SERVICE") -> str:
    """The release's image of this kind, pinned.

    Raises:
        MissingImage: there is none, or it is named by a tag, which may be another image tomorrow.
    """
    found = release.images.get(kind)
    if found is None:
        raise MissingImage(
            f"release {release.version} has no image of kind {kind!r}: run  edgeloop release push {service}"
            f" REGISTRY/REPOSITORY --kind {kind} --version {release.version}"
        )
    return pinned(found)


def pinned(reference: str) -> str:
    """``reference``, if it names a digest.

    Raises:
        MissingImage: it does not.
    """
    if not _PINNED.match(reference):
        raise MissingImage(f"image {reference!r} is not named by digest: write NAME@sha256:...")
    return reference


def pod_security() -> Manifest:
    """Of the whole pod: no root, and only the system calls that the runtime's default profile has."""
    return {
        "runAsNonRoot": True,
        "runAsUser": USER,
        "runAsGroup": USER,
        "fsGroup": USER,
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def container_security() -> Manifest:
    """Of each container."""
    return {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def reporting(secret: str, node: Mapping[str, Any], ring: int) -> tuple[list[Manifest], Manifest, Manifest]:
    """What makes a predictor report: environment of the container, its mount, and the pod's volume.

    Args:
        secret: has ``url``, the broker's, and the files that it names, below ``/etc/edgeloop-broker``.
        node: whom the reports are of, as an environment variable has it: ``value`` or ``valueFrom``.
        ring: of that node.
    """
    environment: list[Manifest] = [
        {"name": "EDGELOOP_BROKER", "valueFrom": {"secretKeyRef": {"name": secret, "key": "url"}}},
        {"name": "EDGELOOP_NODE", **node},
        {"name": "EDGELOOP_RING", "value": str(ring)},
    ]
    mount = {"name": "broker", "mountPath": "/etc/edgeloop-broker", "readOnly": True}
    return environment, mount, {"name": "broker", "secret": {"secretName": secret}}


def probes(live: str, ready: str, port: str) -> Manifest:
    """Two minutes to start on a slow card; then ten seconds to leave the service, a minute to be started anew."""

    def get(path: str, **timing: int) -> dict[str, Any]:
        return {"httpGet": {"path": path, "port": port}} | timing

    return {
        "startupProbe": get(live, periodSeconds=2, failureThreshold=60),
        "readinessProbe": get(ready, periodSeconds=10, timeoutSeconds=5),
        "livenessProbe": get(live, periodSeconds=20, timeoutSeconds=5),
    }
