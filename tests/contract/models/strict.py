"""Built-in kinds checked against the Kubernetes package's models: unknown fields and wrong types at any depth."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, ValidationError


def faults(manifest: dict[str, Any]) -> list[str]:
    """What is wrong with a manifest; empty when nothing is.

    The models take their Python names as well, which the API does not, so keys with an underscore are faults too. They
    know neither bounds nor patterns.
    """
    found = [f"{path}: is no field name of the API" for path in _python_names(manifest)]
    try:
        _model(manifest["kind"]).model_validate(manifest)
    except ValidationError as error:
        found += [f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()]
    return found


def _model(kind: str) -> type[BaseModel]:
    from kubernetes import client

    found: object = getattr(client, f"V1{kind}")
    assert isinstance(found, type) and issubclass(found, BaseModel)
    return found


def _python_names(value: Any, at: str = "") -> Iterator[str]:
    if isinstance(value, list):
        for number, item in enumerate(value):
            yield from _python_names(item, f"{at}[{number}]")
    if isinstance(value, dict):
        for key, item in value.items():
            if "_" in key and "/" not in key:
                yield f"{at}.{key}"
            yield from _python_names(item, f"{at}.{key}")
