"""Keel's annotations for a plain Deployment, on request.

Keel follows the tags of a registry by itself and knows neither rings nor signatures, so it is nothing that a rollout
uses. For a site on its own without an operator it may be enough. On a Deployment that KServe made it would fight with
KServe's controller, which puts back what it changes.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Literal

from edgeloop.clients.cluster import Manifest
from edgeloop.errors import BadInput

_PREFIX = "keel.sh"


class NotForKeel(BadInput):
    """Keel would do nothing about this object, or harm it."""


@dataclass(frozen=True)
class KeelOptions:
    """What Keel follows."""

    policy: Literal["all", "major", "minor", "patch", "force"] = "force"
    """Which new versions are taken; ``force`` takes the same tag again when its digest changed."""
    schedule: str = "@every 10m"
    """How often the registry is polled."""
    match_tag: bool = True
    """With ``force``: only the tag that the Deployment names."""
    approvals: int = 0
    """How many must say yes to Keel before an update."""


def with_keel(manifest: Manifest, options: KeelOptions | None = None) -> Manifest:
    """A copy of a plain Deployment that Keel keeps up to date.

    Raises:
        NotForKeel: it is no Deployment, is another controller's, or names an image by digest.
    """
    chosen = options or KeelOptions()
    what = f"{manifest['kind']} {manifest['metadata']['name']}"
    if manifest["kind"] != "Deployment":
        raise NotForKeel(f"{what}: Keel is for plain Deployments only: leave it out")
    if manifest["metadata"].get("ownerReferences"):
        raise NotForKeel(f"{what}: its owner puts back what Keel changes: leave it out")
    for container in manifest["spec"]["template"]["spec"]["containers"]:
        if "@" in container["image"]:
            raise NotForKeel(f"{what}: {container['image']} is one image for ever: name a tag, or leave Keel out")
    after = copy.deepcopy(manifest)
    after["metadata"].setdefault("annotations", {}).update(_annotations(chosen))
    return after


def _annotations(options: KeelOptions) -> dict[str, str]:
    found = {"policy": options.policy, "trigger": "poll", "pollSchedule": options.schedule}
    if options.policy == "force":
        found["matchTag"] = str(options.match_tag).lower()
    if options.approvals:
        found["approvals"] = str(options.approvals)
    return {f"{_PREFIX}/{name}": value for name, value in found.items()}
