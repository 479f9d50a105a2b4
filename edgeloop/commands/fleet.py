"""``edgeloop fleet``: the nodes as the cloud knows them, from what they said last."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from functools import cache
from typing import TYPE_CHECKING, Any

import click

from edgeloop.commands.fleet_ring import ring
from edgeloop.commands.output import Context, table
from edgeloop.errors import BadInput

if TYPE_CHECKING:
    from edgeloop.fleet.rollouts.roster import NodeRow, Roster
    from edgeloop.store import FleetStore

#: The model version of a service's release.
Versions = Callable[[str, str], str | None]


class UnknownNode(BadInput):
    """A node that was never heard."""


def _roster(fleet: FleetStore) -> tuple[Roster, str | None]:
    """The roster, and until when it was heard."""
    from edgeloop.fleet.rollouts.roster import Roster

    roster = Roster(fleet.database)
    heard = roster.last_heard()
    return roster, None if heard is None else f"{heard['at']:%Y-%m-%d %H:%M:%S}"


@click.group()
def fleet() -> None:
    """The nodes of the fleet: what each was told to run, what it runs, and what went wrong there."""


fleet.add_command(ring)


@fleet.command("list")
@click.option("--service", default=None, help="Nodes of this service only.")
@click.pass_obj
def list_nodes(context: Context, service: str | None) -> None:
    """Every node that was ever heard, by service and ring. Online is as of the last tick that listened."""
    from edgeloop.bootstrap import App

    app = App(context.settings)
    if service is not None:
        app.service(service)
    roster, heard = _roster(app.fleet)
    rows, versions = roster.rows(service), cache(app.fleet.version_of)
    context.result(
        {"heard_at": heard, "nodes": [_fields(row, versions) for row in rows]}, _listed(rows, heard, versions)
    )


@fleet.command("show")
@click.argument("node")
@click.pass_obj
def show(context: Context, node: str) -> None:
    """What NODE said last, service by service."""
    from edgeloop.bootstrap import App
    from edgeloop.fleet.rollouts.moves import held

    known = App(context.settings).fleet
    roster, heard = _roster(known)
    rows = roster.rows(node=node)
    if not rows:
        raise UnknownNode(f"node {node!r} was never heard: see  edgeloop fleet list")
    moves = [why for move, why in held(known) if move.node == node]
    versions = cache(known.version_of)
    found = {"heard_at": heard, "node": node, "moves": moves, "services": [_fields(row, versions) for row in rows]}
    context.result(found, "\n\n".join([*(_shown(row, versions) for row in rows), *moves]))


def _fields(row: NodeRow, versions: Versions) -> dict[str, Any]:
    named = {"serving_version": row.serving, "wanted_version": row.wanted}
    return (
        asdict(row)
        | {"heard_at": row.heard_at.isoformat()}
        | {name: versions(row.service, release) if release else None for name, release in named.items()}
    )


def _listed(rows: list[NodeRow], heard: str | None, versions: Versions) -> str:
    if not rows:
        return "no node was heard yet: a rollout hears them on its way; who is there now says  edgeloop status"
    cells = [_cells(row, versions) for row in rows]
    online = sum(row.online for row in rows)
    last = f"{len(rows)} nodes, {online} online; heard at {heard} UTC"
    return "\n".join([table(cells, ["node", "ring", "service", "serving", "wanted", "state"]), last])


def _cells(row: NodeRow, versions: Versions) -> list[str]:
    runs = [_named(row, release, versions) for release in (row.serving, row.wanted)]
    return [row.node, str(row.ring), row.service, *runs, _state(row)]


def _state(row: NodeRow) -> str:
    if not row.online:
        return "offline"
    if row.refused is not None and row.refused == row.wanted:
        return "refuses"
    return "" if row.serving == row.wanted else "behind"


def _shown(row: NodeRow, versions: Versions) -> str:
    lines = {
        "node": row.node,
        "service": row.service,
        "ring": str(row.ring),
        "state": _state(row) or "well",
        "serving": _named(row, row.serving, versions, 64),
        "wanted": _named(row, row.wanted, versions, 64),
        "staged": _named(row, row.staged, versions, 64),
        "refused": _named(row, row.refused, versions, 64),
        "last error": row.last_error,
        "heard at": f"{row.heard_at:%Y-%m-%d %H:%M:%S} UTC",
    }
    width = max(map(len, lines))
    return "\n".join(f"{name.ljust(width)}  {value or 'none'}" for name, value in lines.items())


def _named(row: NodeRow, release: str | None, versions: Versions, digits: int = 12) -> str:
    from edgeloop.fleet.rollouts.plan import release_text

    return release_text(versions(row.service, release), release, digits) if release else "none"
