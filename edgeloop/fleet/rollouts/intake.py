"""Hears what the nodes say, and writes down what is new.

The broker keeps the newest word of every node. What it said before, and is said again, is neither parsed nor written.
A fleet that was only heard in part passes nothing, but what was heard is kept.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from edgeloop.clients.broker import Broker, Gathered, Message
from edgeloop.fleet.rollouts.roster import STALE, Roster
from edgeloop.samples.records import Report
from edgeloop.samples.topics import MARKS, NODES, parse_node_topic

_log = logging.getLogger(__name__)
#: With a hearing so short ago, what is new was said just now, whatever the node's clock says.
_JUST_NOW = STALE / 2
#: So soon after a hearing, another that brought nothing new is not written down.
_SPARE = timedelta(seconds=5)
_ERROR_CHARS = 500


@dataclass(frozen=True)
class Heard:
    """One hearing."""

    complete: bool
    """Whether all that the broker keeps was heard."""
    heard: int
    """Messages that said something new."""
    why: str = ""
    """What is known of the part that is missing."""


def hear(roster: Roster, broker: Broker, at: datetime) -> Heard:
    """Read what the nodes said since the last hearing into ``roster``; ``at`` is our time.

    The first hearing on a connection reads all that the broker keeps, the next ones what came since.

    Raises:
        BrokerUnavailable: there is no connection.
        DatabaseUnavailable: nothing was written; the next hearing reads all again.
    """
    found = broker.gather(NODES, MARKS)
    if not found.complete:
        _log.warning("not every node was heard: %s", found.why)
    try:
        heard = _write(roster, found, at)
    except BaseException:
        found.again()
        raise
    return Heard(found.complete, heard, found.why)


def _write(roster: Roster, found: Gathered, at: datetime) -> int:
    before = roster.last_heard()
    recent = before is not None and before["complete"] and timedelta() <= at - before["at"] <= _JUST_NOW
    reports, words = list[dict[str, Any]](), list[dict[str, Any]]()
    for message, node, service, sha in _fresh(found.messages, roster):
        if service and (row := _report_row(message, node, service, at, recent)) is not None:
            reports.append(row | {"payload": sha})
        elif not service and (row := _word_row(message, node)) is not None:
            words.append(row | {"payload": sha})
    said_so = before is not None and before["complete"] == found.complete and timedelta() <= at - before["at"] <= _SPARE
    if reports or words or not said_so:
        roster.note(reports, words, at=at, complete=found.complete)
    return len(reports) + len(words)


def _fresh(messages: Sequence[Message], roster: Roster) -> Iterator[tuple[Message, str, str, str]]:
    """Messages that were not heard before: each with its node, its service, and the digest of its payload."""
    known = roster.payloads() if messages else {}
    for message in messages:
        about = parse_node_topic(message.topic)
        if about is None or not message.payload:  # empty: the broker was told to forget it, we were not
            continue
        sha = hashlib.sha256(message.payload).hexdigest()
        if known.get(about) != sha:
            yield message, *about, sha


def _report_row(message: Message, node: str, service: str, at: datetime, recent: bool) -> dict[str, Any] | None:
    try:
        report = Report.model_validate_json(message.payload)
        _check(report, node, service)
        said_at = report.at.astimezone(UTC) if report.at.tzinfo else report.at.replace(tzinfo=UTC)
    except (ValueError, OverflowError) as error:  # also of a time that no calendar has
        _log.warning("what %s says does not parse: %s", message.topic, error)
        return None
    return {
        "node": node,
        "service": service,
        "ring": report.ring,
        "said_at": said_at,
        # What is retained may be old: then only the node's clock knows when it was said.
        "heard_at": at if recent or not message.retain else min(at, said_at),
        "online": report.online,
        "wanted": report.wanted,
        "serving": report.serving,
        "staged": report.staged,
        "refused": report.refused,
        "last_error": (report.last_error or "")[:_ERROR_CHARS].replace("\0", "") or None,
        "profile": report.profile,
        "counted": _counted(report),
    }


def _check(report: Report, node: str, service: str) -> None:
    """A report that the tables do not hold must not keep the others out of them."""
    if (report.node, report.service) != (node, service):
        raise ValueError(f"it is about {report.node[:80]} and {report.service[:80]}")
    digests = report.wanted, report.serving, report.staged, report.refused
    if len(node) > 128 or len(service) > 64 or any(len(d) > 80 or "\0" in d for d in digests if d):
        raise ValueError("a name or digest is too long")
    if report.profile and (len(report.profile) > 64 or "\0" in report.profile):
        raise ValueError("the name of its profile is too long")
    if not 0 <= report.ring < 2**31:
        raise ValueError(f"there is no ring {report.ring}")


def _counted(report: Report) -> str:
    """What it counted under the release that it serves, as JSON; numbers that cannot be are none."""
    labelled = max(0, report.audit.get("labelled", 0))
    histogram = [max(0, count) for count in report.confidence_histogram]
    return json.dumps(
        {
            "answered": max(0, report.release_answered),
            "failed": max(0, report.release_failed),
            "audited": labelled,
            "agreed": min(labelled, max(0, report.audit.get("agreed", 0))),
            "histogram": histogram if len(histogram) == 10 else [0] * 10,
            "p99": report.latency_ms_p99,
        }
    )


def _word_row(message: Message, node: str) -> dict[str, Any] | None:
    try:
        online = json.loads(message.payload)["online"]
    except (ValueError, KeyError, TypeError) as error:
        _log.warning("what %s says does not parse: %s", message.topic, error)
        return None
    return {"node": node, "online": bool(online)} if len(node) <= 128 else None
