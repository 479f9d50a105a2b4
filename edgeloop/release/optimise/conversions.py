"""Backbones that were converted before: a new head on the same backbone finds them, and nodes fetch nothing anew.

It matters most for ``int8``, whose bytes follow from the inputs that it was calibrated on, which later dataset versions
have others of: what is released first decides what a backbone is in this precision, for ever.
"""

from __future__ import annotations

import json
from collections.abc import Callable

from edgeloop.clients.objects import ObjectStore
from edgeloop.errors import EdgeloopError
from edgeloop.exports.litert import Form
from edgeloop.samples.records import canonical, digest, hexdigest
from edgeloop.samples.releases import blob_key

#: A change of how backbones are converted changes it too.
_RECIPE = 1


class DamagedLayer(EdgeloopError):
    """A layer that variants are made of is not in the store, or its bytes are others."""


def conversion_key(service: str, source: str, form: Form, compiler: str | None = None) -> str:
    """Object key of the record of what a backbone became; ``source`` is the digest of what it was made of: the Keras
    backbone, or for a compiler what was converted from it."""
    name = digest(canonical([_RECIPE, source, form, compiler]))
    return f"conversions/{service}/{hexdigest(name)}.json"


def converted(store: ObjectStore, key: str, make: Callable[[], bytes]) -> tuple[str, bytes]:
    """Digest and bytes of the backbone under ``key``; made and kept where there is none.

    Of two who make it at once, the second takes the first's.
    """
    known = _load(store, key)
    if known:
        return known
    data = make()
    store.create(blob_key(digest(data)), data)
    if not store.create(key, canonical({"backbone": digest(data)})):
        return _load(store, key) or (digest(data), data)
    return digest(data), data


def forget_unreleased(store: ObjectStore, service: str, key: str) -> None:
    """Let the conversion under ``key`` be made anew, with other inputs, unless a release has it."""
    known = _load(store, key)
    if known is None or not any(known[0].encode() in store.get(one.key) for one in store.list(f"releases/{service}")):
        store.delete(key)


def sound_layer(store: ObjectStore, service: str, name: str) -> bytes:
    """The blob ``name``.

    Raises:
        DamagedLayer: it is not there, or is another.
    """
    key = blob_key(name)
    data = store.get(key) if store.size(key) is not None else b""
    if digest(data) != name:
        raise DamagedLayer(f"layer {name} of {service} is not whole at {store.url}/{key}: register the version again")
    return data


def _load(store: ObjectStore, key: str) -> tuple[str, bytes] | None:
    """What a record names, if that is whole."""
    if store.size(key) is None:
        return None
    name = str(json.loads(store.get(key))["backbone"])
    if store.size(blob_key(name)) is None:
        return None
    data = store.get(blob_key(name))
    return (name, data) if digest(data) == name else None
