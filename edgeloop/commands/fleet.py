"""``edgeloop fleet``: the nodes as the cloud knows them, from what they said last."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from edgeloop.commands.fleet_ring import ring
from edgeloop.commands.output import Context, table
from edgeloop.errors import BadInput

if TYPE_CHECKING:
    from edgeloop.fleet.rollouts.roster import NodeRow, Roster
    from edgeloop.store import FleetStore


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
    if service is not None:
        from edgeloop.bootstrap import App

        App(context.settings).service(service)
    from edgeloop.bootstrap import App

    roster, heard = _roster(App(context.settings).fleet)
    rows = roster.rows(service)
    context.result({"heard_at": heard, "nodes": [_fields(row) for row in rows]}, _listed(rows, heard))


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
    found = {"heard_at": heard, "node": node, "moves": moves, "services": [_fields(row) for row in rows]}
    context.result(found, "\n\n".join([*(_shown(row) for row in rows), *moves]))


def _fields(row: NodeRow) -> dict[str, Any]:
    return asdict(row) | {"heard_at": row.heard_at.isoformat()}


def _listed(rows: list[NodeRow], heard: str | None) -> str:
    if not rows:
        return "no node was heard yet: a rollout hears them on its way; who is there now says  edgeloop status"
    cells = [
        [row.node, str(row.ring), row.service, _short(row.serving), _short(row.wanted), _state(row)] for row in rows
    ]
    online = sum(row.online for row in rows)
    last = f"{len(rows)} nodes, {online} online; heard at {heard} UTC"
    return "\n".join([table(cells, ["node", "ring", "service", "serving", "wanted", "state"]), last])


def _state(row: NodeRow) -> str:
    if not row.online:
        return "offline"
    if row.refused is not None and row.refused == row.wanted:
        return "refuses"
    return "" if row.serving == row.wanted else "behind"


def _shown(row: NodeRow) -> str:
    lines = {
        "node": row.node,
        "service": row.service,
        "ring": str(row.ring),
        "state": _state(row) or "well",
        "serving": row.serving,
        "wanted": row.wanted,
        "staged": row.staged,
        "refused": row.refused,
        "last error": row.last_error,
        "heard at": f"{row.heard_at:%Y-%m-%d %H:%M:%S} UTC",
    }
    width = max(map(len, lines))
    return "\n".join(f"{name.ljust(width)}  {value or 'none'}" for name, value in lines.items())


def _short(digest: str | None) -> str:
    return digest.removeprefix("sha256:")[:12] if digest else "none"
