"""A Kubernetes API server in memory: the calls of :class:`~edgeloop.clients.cluster.Cluster`, with their meaning.

It keeps what decides whether our objects come out right: who manages which field, conflicts, resource versions,
generations, selectors and preconditions. It runs no controller: tests write the status themselves.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from edgeloop.clients.cluster import (
    MANAGER,
    Applied,
    Call,
    ClusterDenied,
    ClusterUnavailable,
    FieldConflict,
    Kind,
    Manifest,
    RefusedManifest,
    UnknownKind,
)
from edgeloop.clients.cluster_fields import Path, drop, from_fields, leaves, put, shown, to_fields

_Key = tuple[Kind, str | None, str]
#: Set by the server or part of the address; nobody manages them.
_UNMANAGED = {"uid", "resourceVersion", "generation", "creationTimestamp", "managedFields", "name", "namespace"}


class MemoryCluster:
    """All methods as in :class:`~edgeloop.clients.cluster.Cluster`; ``calls`` are those made so far."""

    def __init__(
        self,
        name: str = "memory",
        kinds: Iterable[Kind] = (),
        namespaces: Iterable[str] = ("edgeloop",),
        version: tuple[int, int] = (1, 35),
        may: Callable[[Call], bool] = lambda _: True,
    ) -> None:
        self.name = name
        self.calls: list[Call] = []
        self.away = False
        """Whether nothing answers."""
        self._may = may
        self._kinds = set(kinds)
        self._namespaces = set(namespaces)
        self._version = version
        self._objects: dict[_Key, Manifest] = {}
        self._counter = itertools.count(1)

    def version(self) -> tuple[int, int]:
        """As told at the start."""
        self._reach()
        return self._version

    def get(self, kind: Kind, name: str, namespace: str | None = None) -> Manifest | None:
        """A copy of the object."""
        self._called("get", kind, namespace, name)
        return copy.deepcopy(self._objects.get((kind, namespace, name)))

    def list(
        self, kind: Kind, namespace: str | None = None, labels: Mapping[str, str] | None = None
    ) -> Iterator[Manifest]:
        """Copies, by name."""
        self._called("list", kind, namespace)
        for key in sorted(k for k in self._objects if k[0] == kind and namespace in (None, k[1])):
            found = self._objects[key]
            if (labels or {}).items() <= found["metadata"].get("labels", {}).items():
                yield copy.deepcopy(found)

    def apply(self, kind: Kind, manifest: Manifest, *, dry_run: bool = False) -> Applied:
        """Server-side apply as ``edgeloop``."""
        name, namespace = _address(kind, manifest)
        # As the real one, which looks first to know whether the patch changed anything.
        self._called("get", kind, namespace, name)
        self._called("patch", kind, namespace, name)
        live = self._objects.get((kind, namespace, name))
        if live is None:
            self._called("create", kind, namespace, name)
        if namespace is not None and namespace not in self._namespaces:
            raise RefusedManifest(f"{kind.kind} {namespace}/{name}: there is no namespace {namespace}: create it")
        after = _merged(kind, live, manifest, MANAGER)
        if live is not None and _content(after) == _content(live):
            return Applied(copy.deepcopy(live), changed=False)
        self._stamp(after, live)
        if not dry_run:
            self._objects[kind, namespace, name] = after
        return Applied(copy.deepcopy(after), changed=True)

    def delete(self, kind: Kind, name: str, namespace: str | None = None, uid: str | None = None) -> bool:
        """At once, without finalizers."""
        self._called("delete", kind, namespace, name)
        found = self._objects.get((kind, namespace, name))
        if found is None or uid not in (None, found["metadata"]["uid"]):
            return False
        del self._objects[kind, namespace, name]
        return True

    def edit(self, kind: Kind, manifest: Manifest, manager: str = "somebody") -> Manifest:
        """Create or change as another manager does by an update: it takes the fields that it changes. No Call."""
        name, namespace = _address(kind, manifest)
        live = self._objects.get((kind, namespace, name))
        after = copy.deepcopy(live) if live else _fresh(kind, name, namespace)
        fields = {path: value for path, value in leaves(_managed(manifest)) if path}
        taken = {path for path, value in fields.items() if _values(after).get(path) != value}
        for path in taken:
            put(after, path, copy.deepcopy(fields[path]))
        owners = {who: paths - taken for who, paths in _owners(after).items()}
        owners[manager] = owners.get(manager, set()) | taken
        _own(kind, after, owners)
        self._stamp(after, live)
        self._objects[kind, namespace, name] = after
        return copy.deepcopy(after)

    def put_status(self, kind: Kind, name: str, namespace: str | None, status: Mapping[str, Any]) -> None:
        """Write the status subresource, as a controller does. No Call."""
        found = self._objects[kind, namespace, name]
        found["status"] = copy.deepcopy(dict(status))
        found["metadata"]["resourceVersion"] = str(next(self._counter))

    def objects(self) -> set[tuple[str, str | None, str]]:
        """Kind, namespace and name of all there is."""
        return {(kind.kind, namespace, name) for kind, namespace, name in self._objects}

    def _called(self, verb: str, kind: Kind, namespace: str | None, name: str | None = None) -> None:
        self._reach()
        call = Call(verb, kind.group, kind.plural, namespace, name)
        self.calls.append(call)
        if not self._may(call):
            raise ClusterDenied(f"cluster {self.name}: {verb} of {kind.plural} is not allowed: see infra/k8s/rbac")
        if kind not in self._kinds:
            raise UnknownKind(
                f"cluster {self.name} does not know {kind.kind} of {kind.api_version}: install what has it"
            )

    def _reach(self) -> None:
        if self.away:
            raise ClusterUnavailable(f"cluster {self.name} does not answer: check the link")

    def _stamp(self, after: Manifest, live: Manifest | None) -> None:
        meta = after["metadata"]
        version = str(next(self._counter))
        before: Manifest = live["metadata"] if live else {"uid": f"uid-{self.name}-{version}", "generation": 0}
        changed = live is None or live.get("spec") != after.get("spec")
        meta |= {
            "uid": before["uid"],
            "resourceVersion": version,
            "generation": before["generation"] + changed,
            "creationTimestamp": "2026-01-01T00:00:00Z",
        }


def _address(kind: Kind, manifest: Manifest) -> tuple[str, str | None]:
    meta = manifest["metadata"]
    if (manifest.get("apiVersion"), manifest.get("kind")) != (kind.api_version, kind.kind):
        raise RefusedManifest(f"{meta['name']}: is no {kind.kind} of {kind.api_version}: mend apiVersion and kind")
    if ("namespace" in meta) != kind.namespaced:
        raise RefusedManifest(f"{kind.kind} {meta['name']}: metadata.namespace is {meta.get('namespace')!r}: mend it")
    return meta["name"], meta.get("namespace")


def _fresh(kind: Kind, name: str, namespace: str | None) -> Manifest:
    meta = {"name": name} | ({"namespace": namespace} if namespace else {})
    return {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": meta}


def _managed(manifest: Manifest) -> Manifest:
    """The part of an object that has managers."""
    meta = {k: v for k, v in manifest["metadata"].items() if k not in _UNMANAGED}
    rest = {k: v for k, v in manifest.items() if k not in ("apiVersion", "kind", "metadata", "status")}
    return copy.deepcopy(({"metadata": meta} if meta else {}) | rest)


def _content(manifest: Manifest) -> tuple[Manifest, dict[str, set[Path]]]:
    return _managed(manifest), _owners(manifest)


def _values(manifest: Manifest) -> dict[Path, Any]:
    return dict(leaves(_managed(manifest)))


def _merged(kind: Kind, live: Manifest | None, manifest: Manifest, manager: str) -> Manifest:
    name, namespace = _address(kind, manifest)
    after = copy.deepcopy(live) if live else _fresh(kind, name, namespace)
    owners, now, wanted = _owners(after), _values(after), _values(manifest)
    _refuse_conflicts(f"{kind.kind} {name}", owners, now, wanted, manager)
    if live and kind.plural == "daemonsets" and live["spec"]["selector"] != manifest["spec"]["selector"]:
        raise RefusedManifest(f"{kind.kind} {name}: spec.selector: field is immutable: use another name")
    others = set().union(*(paths for who, paths in owners.items() if who != manager))
    drop(after, owners.get(manager, set()) - wanted.keys() - others)
    for path, value in wanted.items():
        put(after, path, copy.deepcopy(value))
    owners[manager] = set(wanted)
    _own(kind, after, owners)
    return after


def _refuse_conflicts(
    what: str, owners: Mapping[str, set[Path]], now: Mapping[Path, Any], wanted: Mapping[Path, Any], manager: str
) -> None:
    for who, paths in owners.items():
        held = [p for p in wanted if who != manager and now.get(p) != wanted[p] and _touches(p, paths)]
        if held:
            raise FieldConflict(what, who, tuple(sorted(shown(path) for path in held)))


def _touches(path: Path, owned: set[Path]) -> bool:
    """Whether one of ``owned`` is the field, holds it, or is held by it."""
    return any(path[: len(other)] == other or other[: len(path)] == path for other in owned)


def _owners(manifest: Manifest) -> dict[str, set[Path]]:
    entries = manifest["metadata"].get("managedFields", [])
    return {entry["manager"]: from_fields(entry["fieldsV1"]) for entry in entries}


def _own(kind: Kind, manifest: Manifest, owners: Mapping[str, set[Path]]) -> None:
    manifest["metadata"]["managedFields"] = [
        {
            "manager": who,
            "operation": "Apply" if who == MANAGER else "Update",
            "apiVersion": kind.api_version,
            "fieldsType": "FieldsV1",
            "fieldsV1": to_fields(sorted(paths)),
        }
        for who, paths in sorted(owners.items())
        if paths
    ]
