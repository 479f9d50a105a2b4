"""Which names every store can hold, and the probe that shows a store keeps its promises.

One set of rules for all adapters: a key that works in a directory must work in a bucket, and the other way round.
"""

from __future__ import annotations

import uuid

from edgeloop.clients.store_types import ObjectStore, StoreUnavailable
from edgeloop.errors import BadInput

WRITING = ".edgeloop-writing"
"""The folder in which directories keep what is not whole yet; no key may begin with it."""


def checked(key: str) -> str:
    parts = key.split("/")
    if not key or any(part in ("", ".", "..") for part in parts):
        raise BadInput(f"object key {key!r} is empty or has an empty, '.' or '..' part: write it like 'folder/name'")
    if not key.isprintable() or "\ufffd" in key:
        raise BadInput(f"object key {key!r} has characters that cannot be printed: use others")
    if len(key.encode()) > 900 or max(len(part.encode()) for part in parts) > 255:
        raise BadInput(f"object key {key[:60]!r}... is too long: at most 900 bytes, and 255 between slashes")
    if parts[0] == WRITING:
        raise BadInput(f"object key {key!r} begins with the reserved folder {WRITING}: use another")
    return key


def folder_of(prefix: str) -> str:
    """ "" or the checked prefix with one slash at its end."""
    return checked(prefix.removesuffix("/")) + "/" if prefix else ""


def table_folder(prefix: str, whole: str) -> str:
    folder = checked(prefix.removesuffix("/"))
    if "%" in whole + folder:
        raise BadInput(f"table {folder!r} in {whole}: Delta tables cannot lie under a path with '%', choose another")
    return folder


def check_range(key: str, start: int, end: int) -> None:
    if start < 0 or end < start:
        raise BadInput(f"range {start}:{end} of {key!r} is not one: give 0 <= start <= end")


def nesting_refused(url: str, key: str) -> BadInput:
    return BadInput(f"{key!r} cannot be written in {url}: an object and a folder would share a name, choose another")


def probe(store: ObjectStore) -> None:
    key = f".edgeloop-check/{uuid.uuid4().hex}"
    created = store.create(key, b"probe")
    try:
        if not created or store.get(key) != b"probe":
            raise StoreUnavailable(store.url, "it did not give back what was written")
        if store.create(key, b"again"):
            raise StoreUnavailable(store.url, "it ignores conditional writes, so writers would overwrite each other")
    finally:
        store.delete(key)
