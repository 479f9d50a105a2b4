"""The channel: one small record per service and ring says which release its nodes should run.

The record in the object store is the truth; the retained MQTT message beside it only makes nodes look sooner.
"""

from __future__ import annotations

import logging

from edgeloop.clients.broker import Broker, BrokerUnavailable
from edgeloop.clients.objects import ObjectStore
from edgeloop.samples.records import canonical
from edgeloop.samples.releases import Wanted, parse_wanted, wanted_key
from edgeloop.samples.topics import wanted_topic

_log = logging.getLogger(__name__)


def wanted(store: ObjectStore, service: str, ring: int) -> Wanted | None:
    """The channel record of ``ring``, None before the first release."""
    key = wanted_key(service, ring)
    return None if store.size(key) is None else parse_wanted(store.get(key), key)


def point_ring(store: ObjectStore, broker: Broker, service: str, ring: int, release: str) -> Wanted:
    """Make ``release`` the one that ``ring`` should run. Idempotent: pointing again changes and nudges nothing.

    Raises:
        StoreUnavailable: the record could not be written; the ring stays where it was.
    """
    former = wanted(store, service, ring)
    if former and former.release == release:
        return former
    record = Wanted(service=service, ring=ring, release=release, sequence=(former.sequence + 1 if former else 1))
    data = canonical(record.model_dump(mode="json"))
    store.put(wanted_key(service, ring), data)
    try:
        broker.publish(wanted_topic(service, ring), data, retain=True)
    except BrokerUnavailable as error:
        _log.warning("nudge of ring %d lost, nodes will poll: %s", ring, error)
    return record
