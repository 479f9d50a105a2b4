"""Checks InferenceServices with the models of the kserve package; runs in that package's environment.

Reads a JSON list of manifests on stdin and writes a JSON list with a list of faults for each. The generated models
check nothing but required fields, so they are walked here: unknown fields and wrong types at any depth. What they take
from Kubernetes is handed to the Kubernetes package's own models, which are strict.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from typing import Any

_LIST = re.compile(r"list\[(.*)\]$")
_MAP = re.compile(r"dict\(str, (.*)\)$")
_PLAIN: dict[str, type] = {"str": str, "int": int, "bool": bool, "float": float}


def walk(kind: str, value: Any, at: str) -> Iterator[str]:
    """Faults of ``value`` as a ``kind`` of the models."""
    import kserve
    import kubernetes.client

    if found := _LIST.match(kind):
        yield from _each(found[1], value, at)
    elif found := _MAP.match(kind):
        yield from _mapping(found[1], value, at)
    elif kind in _PLAIN:
        if not isinstance(value, _PLAIN[kind]) or (kind == "int" and isinstance(value, bool)):
            yield f"{at}: {value!r} is no {kind}"
    elif kind in ("object", "ResourceQuantity"):
        return
    elif hasattr(getattr(kserve, kind, None), "openapi_types"):
        yield from _fields(getattr(kserve, kind), value, at)
    else:
        yield from _kubernetes(getattr(kubernetes.client, kind), value, at)


def _each(kind: str, value: Any, at: str) -> Iterator[str]:
    if not isinstance(value, list):
        yield f"{at}: is no list"
        return
    for number, item in enumerate(value):
        yield from walk(kind, item, f"{at}[{number}]")


def _mapping(kind: str, value: Any, at: str) -> Iterator[str]:
    if not isinstance(value, dict):
        yield f"{at}: is no mapping"
        return
    for key, item in value.items():
        yield from walk(kind, item, f"{at}.{key}")


def _fields(model: Any, value: Any, at: str) -> Iterator[str]:
    if not isinstance(value, dict):
        yield f"{at}: is no mapping"
        return
    names = {given: name for name, given in model.attribute_map.items()}
    for key, item in value.items():
        if key in names:
            yield from walk(model.openapi_types[names[key]], item, f"{at}.{key}")
        else:
            yield f"{at}.{key}: is no field of {model.__name__}"
    try:
        # A generated model refuses to be made without what is required.
        model(**{names[key]: item for key, item in value.items() if key in names})
    except ValueError as error:
        yield f"{at}: {error}"


def _kubernetes(model: Any, value: Any, at: str) -> Iterator[str]:
    from pydantic import ValidationError

    try:
        model.model_validate(value)
    except ValidationError as error:
        for one in error.errors():
            yield f"{at}.{'.'.join(map(str, one['loc']))}: {one['msg']}"


if __name__ == "__main__":
    manifests = json.load(sys.stdin)
    json.dump([list(walk("V1beta1InferenceService", one, "")) for one in manifests], sys.stdout)
