"""Objects that are ours: applied only where no other's stands, deleted only while they are the ones that we made."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from edgeloop.clients.cluster import Applied, Cluster, ClusterDenied, FieldConflict, Kind, Manifest
from edgeloop.errors import BadInput, EdgeloopError
from edgeloop.fleet.targets.pods import MANAGED
from edgeloop.fleet.targets.protocol import Outcome


class ForeignObject(EdgeloopError):
    """An object of our name is there, and not ours."""


def apply_own(cluster: Cluster, kind: Kind, manifest: Manifest, live: Manifest | None, *, dry: bool = False) -> Applied:
    """Apply ``manifest`` over ``live``, what is there by its name.

    Raises:
        ForeignObject: it does not carry our label.
    """
    if live is not None and not is_own(live):
        raise ForeignObject(
            f"cluster {cluster.name}: {kind.kind} {live['metadata']['name']} is not edgeloop's"
            " (no label app.kubernetes.io/managed-by=edgeloop): rename or remove it"
        )
    return cluster.apply(kind, manifest, dry_run=dry)


def is_own(live: Manifest) -> bool:
    """Whether it carries our label."""
    return bool(MANAGED.items() <= (live["metadata"].get("labels") or {}).items())


def delete_own(cluster: Cluster, kind: Kind, found: Iterable[Manifest]) -> int:
    """Delete those of ``found`` that are ours and still the same; how many that were."""
    gone = 0
    for one in [o["metadata"] for o in found if is_own(o)]:
        gone += cluster.delete(kind, one["name"], one.get("namespace"), uid=one["uid"])
    return gone


def outcome(step: Callable[[], int]) -> Outcome:
    """What came of ``step``, which returns how many objects it changed; Unavailable goes through.

    What a person must mend is refused: conflicts, missing rights, manifests and options that cannot be.
    """
    try:
        return Outcome("done", changed=step())
    except (BadInput, FieldConflict, ClusterDenied, ForeignObject) as error:
        return Outcome("refused", str(error))
