"""The Kubernetes API over HTTP, in front of a cluster in memory: what the real client sends must be what the API takes.

Written from the API's documentation: paths, media types, query parameters and Status bodies. Faults can be set, to come
with the next request.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml

from edgeloop.clients.cluster import FieldConflict, Kind, RefusedManifest
from edgeloop.clients.cluster_memory import MemoryCluster

TOKEN = "let-me-in"
Body = dict[str, Any]


def status(code: int, reason: str, message: str, **more: Any) -> tuple[int, Body]:
    """A Status body."""
    return code, {"kind": "Status", "apiVersion": "v1", "reason": reason, "message": message, "code": code} | more


class Api:
    """One API server; ``faults`` are answered instead, one for each request, where they are not None."""

    def __init__(self, cluster: MemoryCluster, kinds: list[Kind], page: int = 2) -> None:
        self.cluster = cluster
        self.kinds = kinds
        self.page = page
        self.faults: list[tuple[int, Body | bytes] | None] = []
        self.requests: list[str] = []

    def answer(self, method: str, target: str, headers: dict[str, str], body: bytes) -> tuple[int, Body | bytes]:
        self.requests.append(f"{method} {target}")
        fault = self.faults.pop(0) if self.faults else None
        if fault:
            return fault
        if headers.get("authorization") != f"Bearer {TOKEN}":
            return status(401, "Unauthorized", "Unauthorized")
        path, query = urlsplit(target).path, {k: v[0] for k, v in parse_qs(urlsplit(target).query).items()}
        if path == "/version":
            major, minor = self.cluster.version()
            return 200, {"major": str(major), "minor": f"{minor}+", "gitVersion": "v"}
        found = self._address(path)
        if found is None:
            return 404, b"404 page not found\n"
        kind, namespace, name = found
        if name is None:
            return self._listed(kind, namespace, query)
        return getattr(self, f"_{method.lower()}")(kind, namespace, name, query, headers, body)  # type: ignore[no-any-return]

    def _address(self, path: str) -> tuple[Kind, str | None, str | None] | None:
        parts = path.strip("/").split("/")
        group, version, rest = ("", parts[1], parts[2:]) if parts[0] == "api" else (parts[1], parts[2], parts[3:])
        namespace = None
        if rest[0] == "namespaces" and len(rest) > 2:
            namespace, rest = rest[1], rest[2:]
        for kind in self.kinds:
            if (kind.group, kind.version, kind.plural) == (group, version, rest[0]):
                return kind, namespace, rest[1] if len(rest) > 1 else None
        return None

    def _listed(self, kind: Kind, namespace: str | None, query: dict[str, str]) -> tuple[int, Body]:
        labels = dict(pair.split("=") for pair in query.get("labelSelector", "").split(",") if pair)
        found = list(self.cluster.list(kind, namespace, labels))
        size, start = min(int(query["limit"]), self.page), int(query.get("continue", "0"))
        items = [{k: v for k, v in item.items() if k not in ("apiVersion", "kind")} for item in found]
        more = {"continue": str(start + size)} if start + size < len(found) else {}
        return 200, {"metadata": more, "items": items[start : start + size]}

    def _get(self, kind: Kind, namespace: str | None, name: str, *_: Any) -> tuple[int, Body]:
        return self._or_lacking(self.cluster.get(kind, name, namespace), kind, name)

    def _or_lacking(self, found: Body | None, kind: Kind, name: str) -> tuple[int, Body]:
        details = {"name": name, "group": kind.group, "kind": kind.plural}
        return (200, found) if found else status(404, "NotFound", f'{kind.plural} "{name}" not found', details=details)

    def _delete(self, kind: Kind, namespace: str | None, name: str, _q: Any, _h: Any, body: bytes) -> tuple[int, Body]:
        options = json.loads(body)
        assert options["propagationPolicy"] == "Background"
        found = self.cluster.get(kind, name, namespace)
        uid = options.get("preconditions", {}).get("uid")
        if found and uid not in (None, found["metadata"]["uid"]):
            return status(409, "Conflict", "Precondition failed: UID in precondition")
        self.cluster.delete(kind, name, namespace)
        return self._or_lacking(found, kind, name)

    def _patch(
        self, kind: Kind, namespace: str | None, name: str, query: dict[str, str], headers: dict[str, str], body: bytes
    ) -> tuple[int, Body]:
        assert headers["content-type"] == "application/apply-patch+yaml"
        assert (query["fieldManager"], query["force"], query["fieldValidation"]) == ("edgeloop", "false", "Strict")
        manifest = yaml.safe_load(body)
        assert (manifest["metadata"]["name"], manifest["metadata"].get("namespace")) == (name, namespace)
        try:
            return 200, self.cluster.apply(kind, manifest, dry_run=query.get("dryRun") == "All").object
        except FieldConflict as error:
            causes = [
                {
                    "reason": "FieldManagerConflict",
                    "message": f'conflict with "{error.manager}" using apps/v1',
                    "field": field,
                }
                for field in error.fields
            ]
            return status(409, "Conflict", "Apply failed with conflicts", details={"causes": causes})
        except RefusedManifest as error:
            return status(422, "Invalid", str(error))


@contextmanager
def served(api: Api) -> Iterator[str]:
    """The address of ``api`` on a free port."""

    class Handler(BaseHTTPRequestHandler):
        def _do(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            headers = {key.lower(): value for key, value in self.headers.items()}
            code, found = api.answer(self.command, self.path, headers, body)
            data = found if isinstance(found, bytes) else json.dumps(found).encode()
            self.send_response(code)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_PATCH = do_DELETE = _do

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def kubeconfig(path: Path, address: str, token: str = TOKEN) -> Path:
    """A kubeconfig with the contexts ``here`` and ``there``."""
    contexts = [{"name": n, "context": {"cluster": "c", "user": "u"}} for n in ("here", "there")]
    path.write_text(
        yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "here",
                "clusters": [{"name": "c", "cluster": {"server": address}}],
                "users": [{"name": "u", "user": {"token": token}}],
                "contexts": contexts,
            }
        ),
        encoding="utf-8",
    )
    return path
