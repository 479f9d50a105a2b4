"""A Kubernetes API server over HTTP, by explicit paths.

The official client does the kubeconfig, its credentials and TLS. Its dynamic client is not used: it asks for every API
group, which RBAC would have to allow, and keeps what it found in a file that others can foresee.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import quote, urlencode

from edgeloop.clients.cluster import (
    MANAGER,
    Applied,
    ClusterUnavailable,
    Kind,
    Manifest,
    UnknownContext,
)
from edgeloop.clients.cluster_answers import Answer, Asked, fault_of
from edgeloop.errors import MissingExtra

if TYPE_CHECKING:
    from kubernetes.client import ApiClient, Configuration

#: Objects to a page of a list.
PAGE = 500
#: Seconds for the connection, and for the answer.
TIMEOUT = (5.0, 30.0)
_APPLY = "application/apply-patch+yaml"
#: The context of a pod's own service account, where there is no kubeconfig.
IN_CLUSTER = "in-cluster"


def connect(context: str | None = None, kubeconfig: Path | None = None) -> KubernetesCluster:
    """The cluster of a kubeconfig context, or of the current one; ``in-cluster`` for the pod's own.

    Nothing is asked yet.

    Raises:
        UnknownContext: there is no such context, or no kubeconfig that can be read.
        MissingExtra: the client is not installed.
    """
    try:
        from kubernetes.client import ApiClient, Configuration
    except ModuleNotFoundError as error:
        raise MissingExtra("kubernetes", "cluster") from error
    # Not Configuration(): in this client that is a copy of a default which any other part of the process may set.
    settings = type.__call__(Configuration)
    name = _load(settings, context, kubeconfig)
    # A call that fails comes again with the next tick.
    settings.retries = False
    return KubernetesCluster(ApiClient(configuration=settings), name)


def _load(settings: Configuration, context: str | None, kubeconfig: Path | None) -> str:
    from kubernetes import config

    if context == IN_CLUSTER:
        try:
            config.load_incluster_config(client_configuration=settings)  # type: ignore[no-untyped-call]
        except config.ConfigException as error:
            raise UnknownContext(f"context {context!r}: {error}: run inside a pod, or name a context") from error
        return IN_CLUSTER
    # Read here: the client reads the variable once, when it is imported.
    file = str(kubeconfig) if kubeconfig is not None else os.environ.get("KUBECONFIG") or None
    name = _named(context, file)
    try:
        config.load_kube_config(  # type: ignore[no-untyped-call]
            file, context=name, client_configuration=settings, persist_config=False
        )
    except (config.ConfigException, OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UnknownContext(f"context {name!r} cannot be used ({reason}): mend the kubeconfig") from error
    return name


def _named(context: str | None, file: str | None) -> str:
    """The context, known to be in the kubeconfig."""
    import yaml
    from kubernetes import config

    try:
        contexts, current = config.list_kube_config_contexts(file)  # type: ignore[no-untyped-call]
    except (config.ConfigException, OSError, ValueError, yaml.YAMLError, TypeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UnknownContext(f"the kubeconfig cannot be read ({reason}): set KUBECONFIG to one that can") from error
    names = sorted(one["name"] for one in contexts)
    name = context or current["name"]
    if name not in names:
        raise UnknownContext(f"the kubeconfig has no context {name!r}, only {', '.join(names)}: name one of them")
    return cast(str, name)


class KubernetesCluster:
    """All methods as in :class:`~edgeloop.clients.cluster.Cluster`."""

    def __init__(self, client: ApiClient, name: str) -> None:
        self.name = name
        self._client = client

    def version(self) -> tuple[int, int]:
        """``minor`` may come as ``35+``."""
        found = self._must(Asked("get", "version"), "GET", "/version")
        return int(found["major"]), int(found["minor"].rstrip("+"))

    def get(self, kind: Kind, name: str, namespace: str | None = None) -> Manifest | None:
        """One call."""
        return self._may_lack(Asked("get", kind.plural, kind, name), "GET", _path(kind, namespace, name))

    def list(
        self, kind: Kind, namespace: str | None = None, labels: Mapping[str, str] | None = None
    ) -> Iterator[Manifest]:
        """One call to a page of 500, held one page at a time."""
        asked = Asked("list", kind.plural, kind)
        selector = ",".join(f"{key}={value}" for key, value in sorted((labels or {}).items()))
        query = {"limit": str(PAGE)} | ({"labelSelector": selector} if selector else {})
        following = ""
        while True:
            page = self._page(asked, _path(kind, namespace), query | ({"continue": following} if following else {}))
            for item in page.get("items") or []:
                # Items of a list do not say what they are.
                yield {"apiVersion": kind.api_version, "kind": kind.kind} | item
            following = page.get("metadata", {}).get("continue", "")
            if not following:
                return

    def apply(self, kind: Kind, manifest: Manifest, *, dry_run: bool = False) -> Applied:
        """Two calls: what is there, and the patch."""
        name, namespace = manifest["metadata"]["name"], manifest["metadata"].get("namespace")
        before = self.get(kind, name, namespace)
        query = {"fieldManager": MANAGER, "force": "false", "fieldValidation": "Strict"}
        query |= {"dryRun": "All"} if dry_run else {}
        after = self._must(
            Asked("patch", kind.plural, kind, name), "PATCH", _path(kind, namespace, name), query, manifest
        )
        return Applied(after, changed=before is None or _differs(before, after, dry_run))

    def delete(self, kind: Kind, name: str, namespace: str | None = None, uid: str | None = None) -> bool:
        """What the object owns goes in the background."""
        options: Manifest = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"}
        if uid is not None:
            options["preconditions"] = {"uid": uid}
        asked = Asked("delete", kind.plural, kind, name)
        answer = self._send("DELETE", _path(kind, namespace, name), {}, options)
        if answer.status == 409 and uid is not None:
            return False
        return self._read(asked, answer, missing=True) is not None

    def _page(self, asked: Asked, path: str, query: Mapping[str, str]) -> Manifest:
        answer = self._send("GET", path, query)
        following = answer.body.get("metadata", {}).get("continue", "") if answer.status == 410 else ""
        if following:
            # The server forgot that moment of the list; it goes on behind the last name, as things are now.
            answer = self._send("GET", path, {**query, "continue": following})
        return self._read(asked, answer) or {}

    def _may_lack(self, asked: Asked, method: str, path: str) -> Manifest | None:
        return self._read(asked, self._send(method, path, {}), missing=True)

    def _must(
        self, asked: Asked, method: str, path: str, query: Mapping[str, str] | None = None, body: Manifest | None = None
    ) -> Manifest:
        return self._read(asked, self._send(method, path, query or {}, body)) or {}

    def _read(self, asked: Asked, answer: Answer, *, missing: bool = False) -> Manifest | None:
        """The body; None for an object that is not there, where it ``missing`` is no fault."""
        if answer.status < 300:
            return answer.body
        if missing and answer.status == 404 and answer.body.get("reason") == "NotFound":
            return None
        raise fault_of(self.name, asked, answer)

    def _send(self, method: str, path: str, query: Mapping[str, str], body: Manifest | None = None) -> Answer:
        from kubernetes.client import ApiException
        from urllib3.exceptions import HTTPError

        kind = _APPLY if method == "PATCH" else "application/json"
        address = f"{path}?{urlencode(query)}" if query else path
        headers = {"Accept": "application/json", "Content-Type": kind}
        try:
            verb, url, headers, sent, _ = self._client.param_serialize(
                method, address, header_params=headers, body=body, auth_settings=["BearerToken"]
            )
            reply = self._client.call_api(verb, url, headers, sent, _request_timeout=TIMEOUT)
            data = reply.read()  # type: ignore[no-untyped-call]
        except (ApiException, HTTPError, OSError) as error:
            reason = " ".join(str(error).split())[:200]
            raise ClusterUnavailable(f"cluster {self.name} does not answer ({reason}): check the link") from error
        return Answer(reply.status, _body(data))


def _path(kind: Kind, namespace: str | None, name: str | None = None) -> str:
    root = f"/apis/{kind.group}/{kind.version}" if kind.group else f"/api/{kind.version}"
    place = f"/namespaces/{quote(namespace, safe='')}" if namespace else ""
    return f"{root}{place}/{kind.plural}" + (f"/{quote(name, safe='')}" if name else "")


def _body(data: bytes) -> dict[str, Any]:
    try:
        found = json.loads(data)
    except ValueError:
        return {"message": data[:200].decode(errors="replace")}
    return found if isinstance(found, dict) else {"message": str(found)[:200]}


def _differs(before: Manifest, after: Manifest, dry_run: bool) -> bool:
    if not dry_run:
        return bool(before["metadata"]["resourceVersion"] != after["metadata"]["resourceVersion"])
    return _bare(before) != _bare(after)


def _bare(manifest: Manifest) -> Manifest:
    """Without what the server counts by itself."""
    own = ("resourceVersion", "generation", "managedFields")
    meta = {key: value for key, value in manifest["metadata"].items() if key not in own}
    return {key: value for key, value in manifest.items() if key != "status"} | {"metadata": meta}
