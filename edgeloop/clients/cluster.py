"""What edgeloop asks of a Kubernetes API server: a handful of calls on named kinds, which RBAC can list.

Server-side apply with one field manager; a field that somebody else manages is reported and never taken.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from edgeloop.errors import BadInput, EdgeloopError, Unavailable

#: The field manager of every apply.
MANAGER = "edgeloop"
Manifest = dict[str, Any]


@dataclass(frozen=True)
class Kind:
    """A kind of object as its API path names it."""

    group: str
    """Empty for the core group."""
    version: str
    plural: str
    kind: str
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        """``group/version``, or ``version`` for the core group."""
        return f"{self.group}/{self.version}" if self.group else self.version


#: Kinds that every cluster has.
DAEMON_SETS = Kind("apps", "v1", "daemonsets", "DaemonSet")
DEPLOYMENTS = Kind("apps", "v1", "deployments", "Deployment")
NODES = Kind("", "v1", "nodes", "Node", namespaced=False)
PODS = Kind("", "v1", "pods", "Pod")


@dataclass(frozen=True)
class Call:
    """One call as RBAC sees it."""

    verb: str
    group: str
    resource: str
    """Plural, with the subresource behind a slash."""
    namespace: str | None = None
    name: str | None = None


@dataclass(frozen=True)
class Applied:
    """What an apply did."""

    object: Manifest
    changed: bool


class ClusterUnavailable(Unavailable):
    """The API server does not answer."""


class ClusterDenied(EdgeloopError):
    """The API server refuses this caller the call; the message names what RBAC lacks."""


class UnknownContext(BadInput):
    """The kubeconfig has no such context; the message lists those it has."""


class UnknownKind(BadInput):
    """The cluster does not know this kind: what defines it is not installed."""


class RefusedManifest(BadInput):
    """The API server found the manifest invalid."""


class FieldConflict(EdgeloopError):
    """Somebody else manages fields that were to be set; nothing was changed."""

    def __init__(self, what: str, manager: str, fields: tuple[str, ...]) -> None:
        super().__init__(
            f"{what}: {', '.join(fields)} is managed by {manager!r}: let it go there, or leave it out here"
        )
        self.manager = manager
        self.fields = fields


class Cluster(Protocol):
    """One API server, by one kubeconfig context."""

    name: str
    """The context, for messages."""

    def version(self) -> tuple[int, int]:
        """Major and minor version of the server; every caller may read it, so RBAC need not list it."""

    def get(self, kind: Kind, name: str, namespace: str | None = None) -> Manifest | None:
        """One object; None when there is none."""

    def list(
        self, kind: Kind, namespace: str | None = None, labels: Mapping[str, str] | None = None
    ) -> Iterator[Manifest]:
        """All objects with these labels, read page by page."""

    def apply(self, kind: Kind, manifest: Manifest, *, dry_run: bool = False) -> Applied:
        """Server-side apply, fields that the kind does not know refused.

        ``dry_run`` changes nothing and returns the object as it would be. Where nothing differs nothing is written,
        and ``changed`` is False.

        Raises:
            FieldConflict: another manager set a field that would get another value.
            RefusedManifest: the server finds it invalid.
        """

    def delete(self, kind: Kind, name: str, namespace: str | None = None, uid: str | None = None) -> bool:
        """Delete one object and what it owns, if it still is the one with ``uid``; False when there is no such one."""
