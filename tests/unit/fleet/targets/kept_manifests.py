"""Manifests kept as files, so that a change of what clusters are given shows in a review.

Written anew by  ``python -m tests.unit.fleet.targets.kept_manifests``.
"""

from __future__ import annotations

from pathlib import Path

import yaml

from edgeloop.clients.cluster import Manifest
from edgeloop.fleet.targets.kserve_manifests import KServeOptions, inference_service
from edgeloop.fleet.targets.kubeedge_manifests import KubeEdgeOptions, daemonset, node_group, prepull_jobs
from tests.unit.fleet.targets.edge import OLD, SERVING

FOLDER = Path(__file__).with_name("golden")


def made() -> dict[str, Manifest]:
    """Each by its file's name."""
    nodes = ["edge-0", "edge-1"]
    plain = KubeEdgeOptions(namespace="edgeloop")
    far = KubeEdgeOptions(arch="arm64", node_selector={"site": "a"}, access="edgeloop-access")
    served = KubeEdgeOptions(image="savedmodel", server=SERVING, pull_secrets=("registry",), hold=True, groups=True)
    mounted = KubeEdgeOptions(image="savedmodel", server=SERVING, model_volume="image", host_port=8501, at_once=1)
    told = KubeEdgeOptions(access="edgeloop-access", reports="edgeloop-broker")
    files = KServeOptions(
        image="model", model_format="onnx", runtime="kserve-mlserver", protocol="v2", scheme="oci+native",
        pull_secrets=("registry",), node_selector={"site": "a"}, replicas=2,
    )  # fmt: skip
    return {
        "daemonset-predictor": daemonset("wine-rater", 0, OLD, plain),
        "daemonset-arm64": daemonset("wine-rater", 1, OLD, far),
        "daemonset-reports": daemonset("wine-rater", 1, OLD, told),
        "daemonset-savedmodel": daemonset("wine-rater", 0, OLD, served),
        "daemonset-image-volume": daemonset("wine-rater", 0, OLD, mounted),
        "prepull-job": prepull_jobs("wine-rater", 0, OLD, nodes, served)[0],
        "node-group": node_group(0),
        "inferenceservice-predictor": inference_service("wine-rater", 0, OLD, KServeOptions(arch="arm64"), "north"),
        "inferenceservice-reports": inference_service(
            "wine-rater", 1, OLD, KServeOptions(reports="edgeloop-broker"), "arn:site/North"
        ),
        "inferenceservice-savedmodel": inference_service(
            "wine-rater", 1, OLD, KServeOptions(image="savedmodel"), "north"
        ),
        "inferenceservice-model": inference_service("wine-rater", 1, OLD, files, "north"),
    }


def text(manifest: Manifest) -> str:
    """As it is kept."""
    return yaml.safe_dump(manifest, sort_keys=False, width=120)


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, manifest in made().items():
        (FOLDER / f"{name}.yaml").write_text(text(manifest), encoding="utf-8")
