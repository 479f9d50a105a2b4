"""What a fleet says of how its rings run on KubeEdge."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from pydantic import ConfigDict

from edgeloop.errors import BadInput
from edgeloop.fleet.targets.pods import Resources, pinned


class BadOptions(BadInput):
    """Options of a target that contradict one another."""


@dataclass(frozen=True)
class KubeEdgeOptions:
    """How rings run on KubeEdge."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    namespace: str = "edgeloop"
    """Must exist."""
    image: Literal["predictor", "savedmodel"] = "predictor"
    """``predictor`` answers by itself; ``savedmodel`` is read by TensorFlow Serving."""
    server: str | None = None
    """TensorFlow Serving's image by digest, for ``savedmodel``."""
    model_volume: Literal["image", "copy"] = "copy"
    """How TensorFlow Serving gets the model: mounted as an image volume (Kubernetes 1.35, here and on the nodes), or
    copied by an init container, for which the image must have been pushed with a base that has ``cp``."""
    model_size: str = "256Mi"
    """Most that a copied model takes of the node's disk."""
    access: str | None = None
    """Name of a ConfigMap in the namespace with ``access.yaml``, who may ask a predictor; left out, whoever reaches it
    may."""
    reports: str | None = None
    """Name of a Secret in the namespace with ``url``, a broker's: predictors report to it, and a ring is judged by what
    they count too. Left out, it is judged by its pods alone."""
    pull_secrets: tuple[str, ...] = ()
    """Names of image pull secrets in the namespace; pre-pull jobs take the first."""
    node_selector: Mapping[str, str] = field(default_factory=dict)
    """Labels that nodes must have besides those of their ring."""
    ring_labels: Mapping[int, Mapping[str, str]] = field(default_factory=dict)
    """Labels that the nodes of a ring have, by ring, in place of ``edgeloop/ring``."""
    groups: bool = False
    """Make a NodeGroup per ring, and select nodes by it instead of by the labels of the ring."""
    arch: str | None = None
    """``amd64`` or ``arm64``: only such nodes. TensorFlow Serving has amd64 only."""
    resources: Resources = field(default_factory=Resources)
    port: int = 8080
    """Where the container answers."""
    host_port: int | None = None
    """Port of the node itself that leads to it; then a node's old pod ends before its new one starts."""
    at_once: int | str = "25%"
    """How many nodes change at a time: a count, or a share. Pods that do not come up count, those of nodes that are
    offline with a new pod among them."""
    hold: bool = False
    """Whether new pods wait on the node for ``keadm ctl unhold-upgrade``."""
    prepull: bool = True
    """Whether images are pulled before any pod changes."""
    prepull_seconds: int = 1800
    """Time for a node's pull."""
    prepull_at_once: int = 5
    """How many nodes pull at a time, for each CloudCore."""
    node_limit: int = 500
    """CloudCore's ``nodeLimit``; a ring that is larger is warned of."""

    def __post_init__(self) -> None:
        if self.image == "savedmodel":
            if self.server is None:
                raise BadOptions("kubeedge: image savedmodel needs TensorFlow Serving's image by digest: add server")
            if self.arch not in (None, "amd64"):
                raise BadOptions(f"kubeedge: TensorFlow Serving has no image for {self.arch}: use image predictor")
            if self.reports is not None:
                raise BadOptions(
                    "kubeedge: TensorFlow Serving does not report: leave out reports, or use image predictor"
                )
            pinned(self.server)
        if self.hold and self.host_port is not None:
            raise BadOptions(
                "kubeedge: with host_port the old pod must end first, and a held node would stand without a server:"
                " leave out hold or host_port"
            )
