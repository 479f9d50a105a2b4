"""What waits for a signature, and the answers to it: objects in the store, so that signer and channel need not meet.

Nothing here is believed: a request is verified by the signer, and an answer when it is adopted.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from edgeloop.clients.objects import ObjectMissing, ObjectStore
from edgeloop.fleet.approvals import Act, Change
from edgeloop.fleet.offline import LARGEST, MalformedRequest, Reply, Request, read
from edgeloop.samples.records import hexdigest

_log = logging.getLogger(__name__)
_FOLDER = "pending"
_SIGNED = ".signed.json"


@dataclass(frozen=True)
class Pending:
    """One change that waits for the signature of ``releases``."""

    service: str
    act: Act
    release: str | None
    since: datetime
    signed: bool
    """The answer is there, to be adopted."""

    @property
    def change(self) -> Change:
        """What is to be signed; what is said beside an approval is in the request only."""
        return Change(self.service, self.act, self.release)


def request_key(service: str, release: str | None) -> str:
    """Object key of the request."""
    return f"{_FOLDER}/{service}/{hexdigest(release) if release else 'renew'}.json"


def reply_key(service: str, release: str | None) -> str:
    """Object key of the answer."""
    return request_key(service, release).removesuffix(".json") + _SIGNED


def post(store: ObjectStore, asked: Request) -> bool:
    """Ask; False when the same is asked already.

    What was asked on an older state is asked anew, even where it would do: a signer that has seen a newer one, for
    another service, would refuse it for ever.
    """
    key, data = request_key(asked.service, asked.release), asked.to_bytes()
    if _found(store, key) == data:
        return False
    store.put(key, data)
    return True


def posted(store: ObjectStore, service: str, release: str | None) -> Request | None:
    """The request; None when there is none. Raises MalformedRequest."""
    key = request_key(service, release)
    data = _found(store, key)
    return read(Request, data, key) if data is not None else None


def answer(store: ObjectStore, reply: Reply) -> str:
    """Put the answer where the channel looks for it; its key."""
    key = reply_key(reply.service, reply.release)
    store.put(key, reply.to_bytes())
    return key


def answered(store: ObjectStore, service: str, release: str | None) -> Reply | None:
    """The answer; None when there is none that can be read."""
    key = reply_key(service, release)
    data = _found(store, key)
    try:
        return read(Reply, data, key) if data is not None else None
    except MalformedRequest as error:
        _log.error("%s", error)
        return None


def refuse(store: ObjectStore, service: str, release: str | None) -> None:
    """Forget an answer that cannot be adopted; the request stays."""
    store.delete(reply_key(service, release))


def settle(store: ObjectStore, service: str, release: str | None) -> None:
    """Forget request and answer."""
    for key in (request_key(service, release), reply_key(service, release)):
        store.delete(key)


def waiting(store: ObjectStore, service: str | None = None) -> Iterator[Pending]:
    """All that waits, of one service or of all; what cannot be read is left out, with a line in the log."""
    found = {one.key: one for one in store.list(f"{_FOLDER}/{service}" if service else _FOLDER)}
    for key, one in sorted(found.items()):
        if key.endswith(_SIGNED):
            continue
        try:
            data = _found(store, key)
            asked = read(Request, data, key) if data is not None else None
        except MalformedRequest as error:
            _log.error("%s", error)
            continue
        if asked is not None and request_key(asked.service, asked.release) == key:
            signed = reply_key(asked.service, asked.release) in found
            yield Pending(asked.service, asked.act, asked.release, one.modified, signed)


def _found(store: ObjectStore, key: str) -> bytes | None:
    try:
        return store.get_range(key, 0, LARGEST + 1)
    except ObjectMissing:
        return None
