"""The InferenceService by which a site runs a release: KServe's v1beta1 API, Standard mode."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import ConfigDict

from edgeloop.clients.cluster import Kind, Manifest
from edgeloop.errors import BadInput
from edgeloop.fleet.targets.pods import (
    MANAGED,
    RELEASE,
    RING,
    SERVICE,
    ImageKind,
    Resources,
    container_security,
    image,
    named,
    pod_security,
    probes,
    release_label,
    reporting,
)
from edgeloop.fleet.targets.protocol import ReleaseRef

INFERENCE_SERVICES = Kind("serving.kserve.io", "v1beta1", "inferenceservices", "InferenceService")
MODE = "serving.kserve.io/deploymentMode"
#: KServe makes names of this one that must stay DNS labels, ``<name>-predictor`` and ``<name>-<namespace>``.
_LONGEST = 40
#: Where KServe's own servers listen, and what it expects of a custom one.
PORT = 8080
_TMP: Manifest = {"name": "tmp", "emptyDir": {"sizeLimit": "64Mi"}}


class BadKServeOptions(BadInput):
    """Options of the target that contradict one another."""


@dataclass(frozen=True)
class KServeOptions:
    """How sites serve with KServe."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    namespace: str = "edgeloop"
    """Of the InferenceServices; must exist on every site."""
    image: ImageKind = "predictor"
    """``predictor`` is a container of our own; ``model`` and ``savedmodel`` are files that one of KServe's runtimes
    reads, by ``storageUri``."""
    scheme: Literal["oci", "oci+native"] = "oci"
    """How files are mounted: ``oci`` starts the image beside the server, so it must have been pushed with a base that
    has a shell; ``oci+native`` mounts it as an image volume (Kubernetes 1.35)."""
    model_format: str | None = None
    """Name of the format, for ``model``; ``tensorflow`` for ``savedmodel``."""
    runtime: str | None = None
    """ServingRuntime or ClusterServingRuntime; left out, KServe chooses one by the format."""
    protocol: Literal["v1", "v2"] | None = None
    """The protocol that the runtime is to speak."""
    reports: str | None = None
    """Name of a Secret in the namespace with ``url``, a broker's: predictors report to it under the name of their site,
    and a ring is judged by what they count too. Left out, it is judged by its pods alone."""
    pull_secrets: tuple[str, ...] = ()
    """Names of image pull secrets in the namespace."""
    node_selector: Mapping[str, str] = field(default_factory=dict)
    """Labels that nodes must have."""
    arch: str | None = None
    """``amd64`` or ``arm64``: only such nodes. TensorFlow Serving has amd64 only."""
    resources: Resources = field(default_factory=Resources)
    """In place of KServe's own default, 1 CPU and 2 GiB."""
    replicas: int = 1
    """Pods per site."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Further fields of ``spec.predictor``, as KServe has them; what the installed version ignores is refused."""
    controller_namespace: str = "kserve"
    """Where KServe's controller runs."""
    version: tuple[int, int] | None = None
    """KServe's version, where the controller's image does not tell."""

    def __post_init__(self) -> None:
        if self.image == "model" and self.model_format is None:
            raise BadKServeOptions("kserve: image model needs the name of its format, such as onnx: add model_format")
        if self.image == "savedmodel" and self.arch not in (None, "amd64"):
            raise BadKServeOptions(f"kserve: TensorFlow Serving has no image for {self.arch}: use image predictor")
        if self.reports is not None and not self._is_single():
            raise BadKServeOptions(
                "kserve: only a single predictor reports for its site: leave out reports, or use image predictor,"
                " replicas 1 and no minReplicas or maxReplicas in extra"
            )
        if self.replicas < 1:
            raise BadKServeOptions(f"kserve: replicas is {self.replicas}: give 1 or more")

    def _is_single(self) -> bool:
        """Of two that speak as one, each would seem to be the other started anew."""
        is_scaled = bool({"minReplicas", "maxReplicas"} & set(self.extra))
        return self.image == "predictor" and self.replicas == 1 and not is_scaled


def isvc_name(service: str) -> str:
    """Name of a service's InferenceService; a site is in one ring, so the ring is not in it."""
    return named("edgeloop", service, longest=_LONGEST)


def deployment_name(service: str) -> str:
    """Name of the Deployment that KServe makes of it."""
    return f"{isvc_name(service)}-predictor"


def service_labels(service: str) -> dict[str, str]:
    """Labels of a service's objects."""
    return {**MANAGED, SERVICE: named(service)}


def inference_service(service: str, ring: int, release: ReleaseRef, options: KServeOptions, site: str) -> Manifest:
    """The InferenceService at ``site``; the release is on its pods too, by which they are told apart."""
    labels = {**service_labels(service), RING: str(ring)}
    told = {RELEASE: release.digest, "edgeloop/version": release.version}
    predictor = {"labels": {**labels, RELEASE: release_label(release)}, "annotations": told, **_pod(options)}
    if options.image == "predictor":
        predictor |= _predictor(ring, release, options, site)
    else:
        predictor["model"] = _model(release, options)
    return {
        "apiVersion": INFERENCE_SERVICES.api_version,
        "kind": INFERENCE_SERVICES.kind,
        "metadata": {
            "name": isvc_name(service),
            "namespace": options.namespace,
            "labels": labels,
            # Named, for a cluster's default may be another; it cannot be changed later.
            "annotations": {MODE: "Standard", **told},
        },
        "spec": {"predictor": predictor | dict(options.extra)},
    }


def _pod(options: KServeOptions) -> Manifest:
    arch = "amd64" if options.image == "savedmodel" else options.arch
    selector = {**options.node_selector, **({"kubernetes.io/arch": arch} if arch else {})}
    secrets = [{"name": name} for name in options.pull_secrets]
    return {
        "minReplicas": options.replicas,
        "maxReplicas": options.replicas,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": pod_security(),
        **({"nodeSelector": selector} if selector else {}),
        **({"imagePullSecrets": secrets} if secrets else {}),
    }


def _predictor(ring: int, release: ReleaseRef, options: KServeOptions, site: str) -> Manifest:
    container, volumes = _container(release, options), [dict(_TMP)]
    if options.reports is not None:
        container["env"], mount, volume = reporting(options.reports, {"value": named(site)}, ring)
        container["volumeMounts"].append(mount)
        volumes.append(volume)
    return {"containers": [container], "volumes": volumes}


def _container(release: ReleaseRef, options: KServeOptions) -> Manifest:
    return {
        # The name by which KServe finds the one that serves.
        "name": "kserve-container",
        "image": image(release, "predictor"),
        "imagePullPolicy": "IfNotPresent",
        "ports": [{"name": "http1", "containerPort": PORT, "protocol": "TCP"}],
        "resources": options.resources.manifest(),
        "securityContext": container_security(),
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],  # noqa: S108 # inside of the container
        **probes("/v2/health/live", "/v2/health/ready", "http1"),
    }


def _model(release: ReleaseRef, options: KServeOptions) -> Manifest:
    of = options.model_format if options.image == "model" else "tensorflow"
    return {
        "modelFormat": {"name": of},
        "storageUri": f"{options.scheme}://{image(release, options.image)}",
        "resources": options.resources.manifest(),
        "securityContext": container_security(),
        **({"runtime": options.runtime} if options.runtime else {}),
        **({"protocolVersion": options.protocol} if options.protocol else {}),
    }
