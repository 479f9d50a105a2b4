"""How nodes and pods do, from the conditions that the API server keeps of them."""

from __future__ import annotations

from edgeloop.clients.cluster import Manifest

#: Reasons for which a container waits and which time alone does not mend.
_STUCK = {
    "CrashLoopBackOff",
    "ImagePullBackOff",
    "ErrImagePull",
    "ErrImageNeverPull",
    "InvalidImageName",
    "CreateContainerConfigError",
    "CreateContainerError",
    "RunContainerError",
}


def condition(manifest: Manifest, kind: str) -> Manifest:
    """The condition of this type; empty when there is none."""
    found = ((manifest.get("status") or {}).get("conditions")) or []
    return next((one for one in found if one.get("type") == kind), {})


def is_true(manifest: Manifest, kind: str) -> bool:
    """Whether the condition holds."""
    return condition(manifest, kind).get("status") == "True"


def is_ready(node: Manifest) -> bool:
    """Whether a node is online."""
    return is_true(node, "Ready")


def is_up(pod: Manifest) -> bool:
    """Whether a pod serves, and is not on its way out."""
    return is_true(pod, "Ready") and "deletionTimestamp" not in pod["metadata"]


def trouble(pod: Manifest) -> str:
    """Why a pod does not come up; empty while it may still."""
    status = pod.get("status") or {}
    if status.get("phase") == "Failed":
        return f"pod failed: {status.get('reason') or status.get('message') or 'no reason given'}"
    for one in [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]:
        waiting = (one.get("state") or {}).get("waiting") or {}
        if waiting.get("reason") in _STUCK:
            return f"{one['name']}: {waiting['reason']}: {' '.join(str(waiting.get('message', '')).split())[:200]}"
    return ""
