"""The nodes for the page: counted ring by ring, and by name no more than a person reads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any

from edgeloop.bootstrap import App
from edgeloop.fleet.reports import collect_reports, status_of
from edgeloop.fleet.rollouts.crowd import Crowd
from edgeloop.fleet.rollouts.roster import NodeRow
from edgeloop.samples.records import now

#: Nodes of one service that are shown by name.
SHOWN = 200
#: So long after a rollout listened, what it heard is shown; later the broker is asked.
_FRESH = timedelta(seconds=60)


def nodes(app: App) -> dict[str, Any]:
    """What runs where, JSON-able.

    Returns:
        ``nodes``: at most :data:`SHOWN` by service, those with trouble first to be kept; ``crowd``: counts by service
        and ring; ``left_out``: by service how many are not in ``nodes``.

    Raises:
        DatabaseUnavailable, BrokerUnavailable: it cannot be told.
    """
    crowd, at = Crowd(app.fleet.database), now()
    heard = crowd.last_heard()
    if heard is not None and timedelta(0) <= at - heard["at"] <= _FRESH:
        return _counted(crowd, at)
    with app.broker() as broker:
        reports = collect_reports(broker)
    rows = [{**status_of(r).model_dump(), "last_error": r.last_error, "at": r.at.isoformat()} for r in reports]
    return _cut(rows)


def _counted(crowd: Crowd, at: datetime) -> dict[str, Any]:
    """From the database: a row is read only where it is shown."""
    counts = crowd.counts(at)
    sizes = Counter[str]()
    for count in counts:
        sizes[count.service] += count.nodes
    shown = [row for service in sizes for row in crowd.worst(service, SHOWN, at)]
    left_out = {service: size - SHOWN for service, size in sizes.items() if size > SHOWN}
    return {"nodes": [_row(row) for row in shown], "crowd": [asdict(one) for one in counts], "left_out": left_out}


def _row(row: NodeRow) -> dict[str, Any]:
    names = ("node", "ring", "service", "serving", "wanted", "online", "last_error")
    return {**{name: getattr(row, name) for name in names}, "at": row.heard_at.isoformat()}


def _cut(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The same from what the broker keeps."""
    crowd: dict[tuple[str, int], Counter[str]] = {}
    for row in rows:
        is_there = row["online"] and row["serving"] is not None and row["serving"] == row["wanted"]
        known = crowd.setdefault((row["service"], row["ring"]), Counter())
        known.update(nodes=1, online=int(row["online"]), there=int(is_there), failing=int(bool(row["last_error"])))
    names = ("nodes", "online", "there", "failing")
    counts = [{"service": s, "ring": r, **{n: known[n] for n in names}} for (s, r), known in crowd.items()]
    sizes = Counter(row["service"] for row in rows)
    shown = [row for service in sizes for row in _worst([row for row in rows if row["service"] == service])]
    left_out = {service: size - SHOWN for service, size in sizes.items() if size > SHOWN}
    return {"nodes": shown, "crowd": counts, "left_out": left_out}


def _worst(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    kept = sorted(rows, key=lambda r: (not r["last_error"], r["online"], r["serving"] == r["wanted"]))[:SHOWN]
    return sorted(kept, key=lambda r: (r["ring"], r["node"]))
