"""The raw inputs on which models are timed, kept from round to round: they lie in every file of a long history.

They are the first few gate samples by name, so nearly the same each time. Without this, a few dozen photos would cost
the reading of all that was ever sent.
"""

from __future__ import annotations

import io
import logging
import zipfile
from collections.abc import Sequence

from edgeloop.clients.objects import ObjectStore
from edgeloop.samples.records import digest, hexdigest
from edgeloop.samples.table import Tables, one_of

_LOG = logging.getLogger(__name__)


def inputs_key(service: str) -> str:
    """Object key of the inputs that are kept for a service."""
    return f"members/{service}/timed.zip"


def kept_inputs(store: ObjectStore, tables: Tables, ids: Sequence[str]) -> dict[str, bytes]:
    """Raw inputs of samples, by id, in their order; those that stayed at their node are left out.

    What was not among the ids of the last call is read from the table, and these are kept for the next.
    """
    names = {name: hexdigest(digest(name.encode())) for name in ids}
    before = _load(store, tables.service)
    found = {name: before[key] for name, key in names.items() if key in before}
    lacking = [name for name in names if name not in found]
    if lacking:
        rows = tables.read("samples", ["sample_id", "payload"], where=one_of("sample_id", lacking))
        found |= {r["sample_id"]: r["payload"] for r in rows}
        _save(store, tables.service, {names[name]: payload for name, payload in found.items()})
    return {name: found[name] for name in ids if found.get(name)}


def _load(store: ObjectStore, service: str) -> dict[str, bytes]:
    key = inputs_key(service)
    if store.size(key) is None:
        return {}
    try:
        with zipfile.ZipFile(io.BytesIO(store.get(key))) as packed:
            return {name: packed.read(name) for name in packed.namelist()}
    except (zipfile.BadZipFile, OSError, EOFError, ValueError, NotImplementedError) as error:
        _LOG.warning("%s/%s is damaged and made anew: %s", store.url, key, error)
        return {}


def _save(store: ObjectStore, service: str, payloads: dict[str, bytes]) -> None:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as packed:
        for name, payload in payloads.items():
            packed.writestr(name, payload)
    store.put(inputs_key(service), sink.getvalue())
