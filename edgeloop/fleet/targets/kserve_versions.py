"""Which KServe a cluster has, and what that version would silently ignore.

KServe takes many fields that mean something in one of its modes only. A field that is taken and ignored looks like a
safe rollout and is none, so it is refused here, and so is a version about which nothing is known.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from edgeloop.clients.cluster import DEPLOYMENTS, Cluster, Manifest
from edgeloop.errors import BadInput

CONTROLLER = "kserve-controller-manager"
Version = tuple[int, int]
#: From the first that calls the mode ``Standard`` to the last that this was checked against.
OLDEST: Version = (0, 16)
NEWEST: Version = (0, 21)
#: Kubernetes that mounts images as volumes by default.
_IMAGE_VOLUMES = (1, 35)
_TAG = re.compile(r":v?(\d+)\.(\d+)(?:\.\d+)?(?:[-+.][\w.-]*)?(?:@sha256:[0-9a-f]+)?$")


class UnsupportedKServe(BadInput):
    """The version cannot be told, or is none that is known."""


class IgnoredField(BadInput):
    """The installed version would take a field and do nothing about it."""


@dataclass(frozen=True)
class Installed:
    """What a cluster has."""

    kserve: Version
    kubernetes: tuple[int, int]


def detect(cluster: Cluster, namespace: str, told: Version | None = None) -> Installed:
    """Read the version from the controller's image in ``namespace``, unless it was ``told``.

    Raises:
        UnsupportedKServe: there is no controller, its image's tag is no version, or it is too old or too new.
    """
    found = told or _of(cluster, cluster.get(DEPLOYMENTS, CONTROLLER, namespace), namespace)
    if not OLDEST <= found <= NEWEST:
        raise UnsupportedKServe(
            f"cluster {cluster.name} has KServe {_text(found)}, known are {_text(OLDEST)} to {_text(NEWEST)}:"
            " install one of these"
        )
    return Installed(found, cluster.version())


def _of(cluster: Cluster, controller: Manifest | None, namespace: str) -> Version:
    if controller is None:
        raise UnsupportedKServe(
            f"cluster {cluster.name} has no Deployment {namespace}/{CONTROLLER}: install KServe, or name its namespace"
        )
    containers = controller["spec"]["template"]["spec"]["containers"]
    image = next((c["image"] for c in containers if c["name"] == "manager"), containers[0]["image"])
    found = _TAG.search(image)
    if found is None:
        raise UnsupportedKServe(
            f"cluster {cluster.name}: image {image!r} of {CONTROLLER} does not tell its version: set version"
        )
    return int(found[1]), int(found[2])


def _text(version: Version) -> str:
    return ".".join(map(str, version))


def refuse_ignored(manifest: Manifest, installed: Installed, where: str) -> None:
    """Refuse an InferenceService that asks for what Standard mode of this version leaves undone.

    Raises:
        IgnoredField: names the field and what to do instead.
    """
    spec = manifest["spec"]
    predictor = spec["predictor"]
    faults = {
        "spec.predictor.canaryTrafficPercent": ("canaryTrafficPercent" in predictor, "use rings"),
        # Taken from 0.20 on, but no route gets its weights.
        "spec.canary": ("canary" in spec, "use rings"),
        "spec.predictor.containerConcurrency": ("containerConcurrency" in predictor, "limit it in the server"),
        "spec.predictor.minReplicas: 0": (predictor.get("minReplicas") == 0, "Standard mode keeps one pod at least"),
    }
    for field, (is_there, instead) in faults.items():
        if is_there:
            version = _text(installed.kserve)
            raise IgnoredField(f"{where}: KServe {version} ignores {field} in Standard mode: leave it out, {instead}")
    uri = str(predictor.get("model", {}).get("storageUri", ""))
    if uri.startswith("oci+native://") and installed.kubernetes < _IMAGE_VOLUMES:
        raise IgnoredField(
            f"{where}: oci+native:// needs image volumes, which Kubernetes {_text(installed.kubernetes)} has not by"
            " default: use scheme oci"
        )
