"""The objects that KubeEdge runs a ring by: a DaemonSet per service and ring, pre-pull jobs, and node groups.

EdgeApplication is not used: it cannot carry DaemonSets and overwrites node selectors.
"""

from __future__ import annotations

from collections.abc import Sequence

from edgeloop.clients.cluster import Kind, Manifest
from edgeloop.fleet.targets.kubeedge_options import BadOptions as BadOptions  # noqa: PLC0414 (others know it from here)
from edgeloop.fleet.targets.kubeedge_options import (
    KubeEdgeOptions as KubeEdgeOptions,  # noqa: PLC0414 (others know it from here)
)
from edgeloop.fleet.targets.pods import (
    MANAGED,
    RELEASE,
    RING,
    SERVICE,
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
from edgeloop.samples.records import canonical, digest

NODE_GROUPS = Kind("apps.kubeedge.io", "v1alpha1", "nodegroups", "NodeGroup", namespaced=False)
PREPULL_JOBS = Kind("operations.kubeedge.io", "v1alpha2", "imageprepulljobs", "ImagePrePullJob", namespaced=False)
EDGE = "node-role.kubernetes.io/edge"
#: Keeps new pods pending on the node until somebody there lets them start.
HOLD = "edge.kubeedge.io/hold-upgrade"
#: Label of objects that are in no namespace: the one that they are for.
NAMESPACE = "edgeloop/namespace"
_BELONGING = "apps.kubeedge.io/belonging-to"
#: All status of a job is in one object, which must not grow too large for the cluster's database.
NODES_PER_JOB = 500


def ring_name(service: str, ring: int) -> str:
    """Name of the ring's DaemonSet."""
    return named("edgeloop", service, "ring", str(ring))


def ring_labels(service: str, ring: int) -> dict[str, str]:
    """Labels of all objects of a ring."""
    return {**MANAGED, SERVICE: named(service), RING: str(ring)}


def group_name(ring: int) -> str:
    """Name of the ring's NodeGroup."""
    return f"edgeloop-ring-{ring}"


def node_labels(ring: int, options: KubeEdgeOptions) -> dict[str, str]:
    """Labels by which the nodes of a ring are known."""
    own = {_BELONGING: group_name(ring)} if options.groups else marks(ring, options)
    arch = "amd64" if options.image == "savedmodel" else options.arch
    return {**options.node_selector, EDGE: "", **own, **({"kubernetes.io/arch": arch} if arch else {})}


def marks(ring: int, options: KubeEdgeOptions) -> dict[str, str]:
    """Labels that tell a ring's nodes from those of other rings."""
    return dict(options.ring_labels.get(ring) or {RING: str(ring)})


def node_group(ring: int, options: KubeEdgeOptions | None = None) -> Manifest:
    """The ring as a NodeGroup: the nodes with the labels of the ring."""
    return {
        "apiVersion": NODE_GROUPS.api_version,
        "kind": NODE_GROUPS.kind,
        "metadata": {"name": group_name(ring), "labels": {**MANAGED, RING: str(ring)}},
        "spec": {"matchLabels": marks(ring, options or KubeEdgeOptions())},
    }


def daemonset(service: str, ring: int, release: ReleaseRef, options: KubeEdgeOptions) -> Manifest:
    """The ring's DaemonSet. Its selector never changes, so it does not know the release."""
    name = ring_name(service, ring)
    selector = {**MANAGED, "app.kubernetes.io/instance": name}
    annotations = {RELEASE: release.digest, "edgeloop/version": release.version}
    hold = {HOLD: "true"} if options.hold else {}
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {
            "name": name,
            "namespace": options.namespace,
            "labels": ring_labels(service, ring),
            "annotations": annotations,
        },
        "spec": {
            "selector": {"matchLabels": selector},
            "minReadySeconds": 5,
            "revisionHistoryLimit": 2,
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": _rate(options)},
            "template": {
                "metadata": {
                    "labels": {**selector, **ring_labels(service, ring), RELEASE: release_label(release)},
                    "annotations": {**annotations, **hold},
                },
                "spec": _pod(service, ring, release, options),
            },
        },
    }


def _rate(options: KubeEdgeOptions) -> Manifest:
    """The new pod comes up before the old one goes, unless both want the node's port."""
    if options.host_port is None:
        return {"maxSurge": options.at_once, "maxUnavailable": 0}
    return {"maxSurge": 0, "maxUnavailable": options.at_once}


def _pod(service: str, ring: int, release: ReleaseRef, options: KubeEdgeOptions) -> Manifest:
    secrets = [{"name": name} for name in options.pull_secrets]
    pod: Manifest = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "nodeSelector": node_labels(ring, options),
        "tolerations": [{"key": EDGE, "operator": "Exists", "effect": "NoSchedule"}],
        "securityContext": pod_security(),
        "terminationGracePeriodSeconds": 30,
        "volumes": [{"name": "tmp", "emptyDir": {"sizeLimit": "64Mi"}}],
    } | ({"imagePullSecrets": secrets} if secrets else {})
    if options.image == "predictor":
        _predictor(pod, ring, release, options)
    else:
        _tensorflow_serving(pod, service, release, options)
    return pod


def _container(name: str, reference: str, options: KubeEdgeOptions) -> Manifest:
    port = {"name": "http", "containerPort": options.port, "protocol": "TCP"}
    return {
        "name": name,
        "image": reference,
        "imagePullPolicy": "IfNotPresent",
        "ports": [port | ({"hostPort": options.host_port} if options.host_port else {})],
        "resources": options.resources.manifest(),
        "securityContext": container_security(),
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],  # noqa: S108 # inside of the container
    }


def _predictor(pod: Manifest, ring: int, release: ReleaseRef, options: KubeEdgeOptions) -> None:
    """The image says what is run; these are its arguments."""
    arguments = ["--http", f"0.0.0.0:{options.port}"]
    container = _container("predictor", image(release, "predictor"), options)
    if options.access is None:
        arguments.append("--open")
    else:
        arguments += ["--access", "/etc/edgeloop/access.yaml"]
        container["volumeMounts"].append({"name": "access", "mountPath": "/etc/edgeloop", "readOnly": True})
        pod["volumes"].append({"name": "access", "configMap": {"name": options.access}})
    if options.reports is not None:
        name = {"valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}
        container["env"], mount, volume = reporting(options.reports, name, ring)
        container["volumeMounts"].append(mount)
        pod["volumes"].append(volume)
    pod["containers"] = [container | {"args": arguments} | probes("/v2/health/live", "/v2/health/ready", "http")]


def _tensorflow_serving(pod: Manifest, service: str, release: ReleaseRef, options: KubeEdgeOptions) -> None:
    model = image(release, "savedmodel")
    arguments = [f"--rest_api_port={options.port}", f"--model_name={service}", "--model_base_path=/models"]
    server = _container("server", str(options.server), options)
    # It listens once the model is loaded, and ends when that fails.
    status = f"/v1/models/{service}"
    server |= {"command": ["tensorflow_model_server"], "args": arguments} | probes(status, status, "http")
    server["volumeMounts"].append({"name": "model", "mountPath": "/models", "readOnly": True})
    pod["containers"] = [server]
    if options.model_volume == "image":
        mounted = {"reference": model, "pullPolicy": "IfNotPresent"}
        server["volumeMounts"][-1]["subPath"] = "models"
        pod["volumes"].append({"name": "model", "image": mounted})
    else:
        pod["volumes"].append({"name": "model", "emptyDir": {"sizeLimit": options.model_size}})
        pod["initContainers"] = [_copy(model, options)]


def _copy(model: str, options: KubeEdgeOptions) -> Manifest:
    return {
        "name": "model",
        "image": model,
        "imagePullPolicy": "IfNotPresent",
        "command": ["cp", "-r", "/models/.", "/copied"],
        "resources": Resources("50m", "32Mi", "500m", "128Mi").manifest(),
        "securityContext": container_security(),
        "volumeMounts": [{"name": "model", "mountPath": "/copied"}],
    }


def images_of(release: ReleaseRef, options: KubeEdgeOptions) -> list[str]:
    """All that a pod of the ring needs pulled."""
    server = [] if options.server is None or options.image == "predictor" else [options.server]
    return [image(release, options.image), *server]


def prepull_jobs(
    service: str, ring: int, release: ReleaseRef, nodes: Sequence[str], options: KubeEdgeOptions, turn: int = 0
) -> list[Manifest]:
    """Jobs that pull the images onto ``nodes``, at most 500 of them each, named by what they do.

    ``turn`` makes another job of the same nodes.
    """
    ordered = sorted(nodes)
    parts = [ordered[at : at + NODES_PER_JOB] for at in range(0, len(ordered), NODES_PER_JOB)]
    return [_prepull_job(service, ring, release, part, options, turn) for part in parts]


def _prepull_job(
    service: str, ring: int, release: ReleaseRef, nodes: list[str], options: KubeEdgeOptions, turn: int
) -> Manifest:
    images = images_of(release, options)
    told = {"images": images, "nodes": nodes, "turn": turn, "for": options.namespace}
    what = digest(canonical(told)).removeprefix("sha256:")[:12]
    # A job takes one secret.
    secret = {"imageSecrets": f"{options.namespace}/{options.pull_secrets[0]}"} if options.pull_secrets else {}
    labels = {**ring_labels(service, ring), RELEASE: release_label(release), NAMESPACE: options.namespace}
    return {
        "apiVersion": PREPULL_JOBS.api_version,
        "kind": PREPULL_JOBS.kind,
        "metadata": {"name": named(ring_name(service, ring), what), "labels": labels},
        "spec": {
            "imagePrePullTemplate": {
                "images": images,
                "nodeNames": nodes,
                "checkItems": ["disk"],
                # Nodes that are offline fail at once, and must not end the job for the others.
                "failureTolerate": "1.0",
                "concurrency": options.prepull_at_once,
                "timeoutSeconds": options.prepull_seconds,
                "retryTimes": 3,
            }
            | secret
        },
    }
