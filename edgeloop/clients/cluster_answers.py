"""What an API server's refusals mean, in one place; bodies are ``Status`` objects of the Kubernetes API."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from edgeloop.clients.cluster import (
    ClusterDenied,
    ClusterUnavailable,
    FieldConflict,
    Kind,
    RefusedManifest,
    UnknownKind,
)
from edgeloop.errors import EdgeloopError

_BY = re.compile(r'conflict with "([^"]*)"')


@dataclass(frozen=True)
class Asked:
    """A call, for messages."""

    verb: str
    resource: str
    kind: Kind | None = None
    name: str = ""

    def __str__(self) -> str:
        return f"{self.verb} {self.resource}" + (f" {self.name}" if self.name else "")


@dataclass(frozen=True)
class Answer:
    """Status and JSON body; a body that is no JSON object is kept as its ``message``."""

    status: int
    body: dict[str, Any] = field(default_factory=dict)

    @property
    def message(self) -> str:
        """One line."""
        return " ".join(str(self.body.get("message", "")).split())[:300] or f"HTTP {self.status}"


def fault_of(cluster: str, asked: Asked, answer: Answer) -> EdgeloopError:
    """The error for an answer that is not a success."""
    where = f"cluster {cluster}: {asked}"
    match answer.status:
        case 401:
            return ClusterDenied(f"{where}: the credentials are not accepted: renew those of the kubeconfig context")
        case 403:
            return ClusterDenied(f"{where}: {answer.message}: apply infra/k8s/rbac, or allow it")
        case 404:
            return _missing(where, asked, answer)
        case 409:
            return _conflict(where, asked, answer)
        case 400 | 415 | 422:
            return RefusedManifest(f"{where}: {answer.message}: mend the manifest")
    return ClusterUnavailable(f"{where}: HTTP {answer.status}, {answer.message}: it is tried again later")


def _missing(where: str, asked: Asked, answer: Answer) -> EdgeloopError:
    if answer.body.get("details", {}).get("kind") == "namespaces":
        return RefusedManifest(f"{where}: {answer.message}: create the namespace")
    known = "it" if asked.kind is None else f"{asked.kind.kind} of {asked.kind.api_version}"
    return UnknownKind(f"{where}: the server does not know {known}: install what defines it")


def _conflict(where: str, asked: Asked, answer: Answer) -> EdgeloopError:
    causes = [c for c in answer.body.get("details", {}).get("causes", []) if c.get("reason") == "FieldManagerConflict"]
    if not causes:
        return ClusterUnavailable(f"{where}: changed by another at the same time: it is tried again later")
    found = _BY.search(causes[0].get("message", ""))
    manager = found.group(1) if found else "another"
    what = f"{asked.kind.kind if asked.kind else asked.resource} {asked.name}"
    return FieldConflict(what, manager, tuple(sorted({c.get("field", "?") for c in causes})))
