"""What nodes say of themselves, read from the broker's retained messages: no daemon gathers them."""

from __future__ import annotations

import json
import logging
from datetime import timedelta

from pydantic import BaseModel, ValidationError

from edgeloop.clients.broker import Broker
from edgeloop.samples.records import Report, now
from edgeloop.samples.topics import MARKS, NODES, parse_node_topic

_log = logging.getLogger(__name__)
#: Seconds that reading all reports may take.
TIMEOUT = 30.0
#: A node whose report is older than this is taken for offline.
STALE = timedelta(seconds=120)


class NodeStatus(BaseModel):
    """One node's place in the fleet, for one service."""

    node: str
    ring: int
    service: str
    serving: str | None
    wanted: str | None
    online: bool


def collect_reports(broker: Broker, service: str | None = None) -> list[Report]:
    """The newest report of every node (of one service), by ring and node. One that does not parse is left out.

    Raises:
        BrokerUnavailable: the broker does not answer.
    """
    found: list[Report] = []
    gone: set[str] = set()
    for message in broker.collect_retained(NODES, timeout=TIMEOUT, mark=MARKS):
        if parse_node_topic(message.topic) is None:
            continue
        try:
            value = json.loads(message.payload)
            if message.topic.endswith("/alive"):
                gone |= set() if value["online"] else {str(value["node"])}
            else:
                found.append(Report.model_validate(value))
        except (ValueError, KeyError, TypeError, ValidationError) as error:
            _log.warning("what %s says does not parse: %s", message.topic, error)
    heard = [
        # The last will speaks for a node that could not say goodbye.
        r.model_copy(update={"online": r.online and r.node not in gone})
        for r in found
        if service in {None, r.service}
    ]
    return sorted(heard, key=lambda r: (r.service, r.ring, r.node))


def is_online(report: Report) -> bool:
    """Whether the node said it is there, and not too long ago."""
    return report.online and now() - report.at < STALE


def status_of(report: Report) -> NodeStatus:
    """The part of a report that says what runs where."""
    return NodeStatus(
        node=report.node,
        ring=report.ring,
        service=report.service,
        serving=report.serving,
        wanted=report.wanted,
        online=is_online(report),
    )
