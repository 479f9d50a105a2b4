"""Which fields a manifest sets, told apart as server-side apply tells them.

An API server keeps for each manager the set of its fields (``metadata.managedFields``). The same names are used here to
show people what differs, and by the cluster in memory to decide who owns what.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Any

#: A field: ``f:NAME`` for a key, ``k:{...}`` for the item of a list that has these keys.
Path = tuple[str, ...]

#: Lists whose items the API tells apart by these keys; all others are one value.
LIST_KEYS: dict[str, tuple[str, ...]] = {
    "containers": ("name",),
    "initContainers": ("name",),
    "volumes": ("name",),
    "env": ("name",),
    "imagePullSecrets": ("name",),
    "volumeMounts": ("mountPath",),
    "ports": ("containerPort", "protocol"),
    "conditions": ("type",),
}
_DEFAULTS = {"protocol": "TCP"}


def leaves(value: Any, at: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Every field that is set, with its value; an empty mapping is a field, a list without keys is one."""
    items = _items(value, at)
    if not items:
        yield at, value
        return
    for segment, item in items:
        yield from leaves(item, (*at, segment))


def _items(value: Any, at: Path) -> list[tuple[str, Any]]:
    if isinstance(value, dict):
        return [(f"f:{key}", item) for key, item in value.items()]
    keys = LIST_KEYS.get(at[-1].removeprefix("f:")) if at else None
    if not keys or not isinstance(value, list) or not all(isinstance(i, dict) for i in value):
        return []
    return [(_item_key(item, keys), item) for item in value]


def _item_key(item: dict[str, Any], keys: tuple[str, ...]) -> str:
    named = {key: item.get(key, _DEFAULTS.get(key)) for key in keys}
    return f"k:{json.dumps(named, sort_keys=True, separators=(',', ':'))}"


def put(root: dict[str, Any], path: Path, value: Any) -> None:
    """Set one field, with what leads to it."""
    here: Any = root
    for segment, following in pairwise(path):
        here = _step(here, segment, [] if following.startswith("k:") else {})
    _leaf(here, path[-1], value)


def _step(here: Any, segment: str, empty: Any) -> Any:
    if segment.startswith("f:"):
        if not isinstance(here.get(segment[2:]), type(empty)):
            here[segment[2:]] = empty
        return here[segment[2:]]
    found = _find(here, segment)
    if found is None:
        found = json.loads(segment[2:])
        here.append(found)
    return found


def _leaf(here: Any, segment: str, value: Any) -> None:
    if segment.startswith("f:"):
        here[segment[2:]] = value
    elif _find(here, segment) is None:
        here.append(value)


def _find(items: list[dict[str, Any]], segment: str) -> dict[str, Any] | None:
    wanted = json.loads(segment[2:])
    return next((i for i in items if all(i.get(k, _DEFAULTS.get(k)) == v for k, v in wanted.items())), None)


def drop(root: dict[str, Any], paths: Iterable[Path]) -> None:
    """Remove fields, and what they leave empty; an item's keys last, since it is found by them."""
    for path in sorted(paths, key=_is_key):
        _drop(root, path)


def _is_key(path: Path) -> bool:
    return len(path) > 1 and path[-2].startswith("k:") and path[-1][2:] in json.loads(path[-2][2:])


def _drop(root: dict[str, Any], path: Path) -> None:
    way: list[tuple[Any, str, Any]] = []
    here: Any = root
    for segment in path:
        child = here.get(segment[2:]) if segment.startswith("f:") else _find(here, segment)
        if child is None:
            return
        way.append((here, segment, child))
        here = child
    for holder, segment, child in reversed(way):
        if segment.startswith("f:"):
            del holder[segment[2:]]
        else:
            holder.remove(child)
        if holder:
            return


def to_fields(paths: Iterable[Path]) -> dict[str, Any]:
    """The set as ``fieldsV1`` has it."""
    tree: dict[str, Any] = {}
    for path in paths:
        here = tree
        for segment in path:
            here = here.setdefault(segment, {})
    return tree


def from_fields(tree: dict[str, Any], at: Path = ()) -> set[Path]:
    """The ends of a ``fieldsV1`` set."""
    found: set[Path] = set()
    for segment, below in tree.items():
        if segment != ".":
            found |= from_fields(below, (*at, segment)) or {(*at, segment)}
    return found


def shown(path: Path) -> str:
    """A field as the API server writes it: ``.spec.template.spec.containers[name="node"].image``."""
    parts = []
    for segment in path:
        if segment.startswith("f:"):
            name = segment[2:]
            parts.append(f".{name}" if re.fullmatch(r"[\w$-]+", name) else f"[{json.dumps(name)}]")
        else:
            keys = json.loads(segment[2:])
            parts.append("[" + ",".join(f"{k}={json.dumps(v)}" for k, v in keys.items()) + "]")
    return "".join(parts)
