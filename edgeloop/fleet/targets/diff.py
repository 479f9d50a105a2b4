"""What an apply would change, for people."""

from __future__ import annotations

import json
from typing import Any

from edgeloop.clients.cluster import Manifest
from edgeloop.clients.cluster_fields import Path, leaves, shown

_SERVERS = {"uid", "resourceVersion", "generation", "creationTimestamp", "managedFields", "selfLink"}


def readable(before: Manifest | None, after: Manifest) -> tuple[str, ...]:
    """One line per field that differs; one line for an object that is new.

    Both are as the API server has them, ``after`` from a dry run, so that fields of others are the same in both.
    """
    meta = after["metadata"]
    what = f"{after['kind']} {meta['namespace'] + '/' if 'namespace' in meta else ''}{meta['name']}"
    if before is None:
        return (f"+ {what}: new, {_images(after)}".rstrip(", "),)
    old, new = _fields(before), _fields(after)
    paths = sorted((path for path in old.keys() | new.keys() if old.get(path) != new.get(path)), key=shown)
    return tuple(f"~ {what}: {shown(path)}: {_value(old, path)} -> {_value(new, path)}" for path in paths)


def _fields(manifest: Manifest) -> dict[Path, Any]:
    meta = {key: value for key, value in manifest["metadata"].items() if key not in _SERVERS}
    return dict(leaves({k: v for k, v in manifest.items() if k != "status"} | {"metadata": meta}))


def _value(fields: dict[Path, Any], path: Path) -> str:
    return json.dumps(fields[path]) if path in fields else "nothing"


def _images(manifest: Manifest) -> str:
    found = sorted({str(v) for path, v in leaves(manifest.get("spec", {})) if path and path[-1] == "f:image"})
    return ", ".join(found)
