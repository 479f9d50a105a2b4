"""Bytes of the object store that are checked against their name before anything is made of them: a store loses or
damages some at times, and a pickle that is not what was written may do anything."""

from __future__ import annotations

from edgeloop.clients.objects import ObjectMissing, ObjectStore
from edgeloop.errors import EdgeloopError
from edgeloop.samples.records import digest
from edgeloop.samples.releases import blob_key


class DamagedBlob(EdgeloopError):
    """A blob is not in the store, or its bytes are not those that its name promises."""

    def __init__(self, name: str, what: str) -> None:
        super().__init__(f"blob {name} {what}")
        self.name = name


def sound_blob(store: ObjectStore, name: str) -> bytes:
    """The bytes that are named ``name``.

    Raises:
        DamagedBlob: they are not there, or are others.
    """
    try:
        data = store.get(blob_key(name))
    except ObjectMissing as error:
        raise DamagedBlob(name, f"is not at {store.url}/{blob_key(name)}") from error
    if digest(data) != name:
        raise DamagedBlob(name, f"at {store.url}/{blob_key(name)} has {len(data)} bytes of digest {digest(data)}")
    return data
