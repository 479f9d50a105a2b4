"""``edgeloop fleet ring``: puts one node into another ring."""

from __future__ import annotations

import getpass
import re

import click

from edgeloop.commands.output import Context
from edgeloop.errors import BadInput

_NAMES = {
    "node": re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,62}[A-Za-z0-9])?"),
    "fleet": re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"),
}


class NoRing(BadInput):
    """Neither a ring nor ``--clear``, or both."""


class BadName(BadInput):
    """What cannot be the name of a node or a fleet."""


def _check(kind: str, name: str) -> None:
    if not _NAMES[kind].fullmatch(name):
        raise BadName(f"{name!r:.80} cannot be the name of a {kind}: see  edgeloop fleet list")


@click.command("ring")
@click.argument("node")
@click.argument("ring", type=click.IntRange(min=0), required=False)
@click.option("--clear", is_flag=True, help="Back to the ring of its node.yaml.")
@click.option("--now", "at_once", is_flag=True, help="Wait for no rollout; it may go back to an older release.")
@click.option("--fleet", default="default", show_default=True, help="As the node's node.yaml says.")
@click.option("--by", "who", default=getpass.getuser, show_default="your user name", help="Who says so.")
@click.option("--reason", default="", help="Why; kept in the ledger.")
@click.pass_obj
def ring(
    context: Context, node: str, ring: int | None, clear: bool, at_once: bool, fleet: str, who: str, reason: str
) -> None:
    """Put NODE into another RING than its node.yaml says. It follows without a restart.

    While a rollout is on its way, a node that has the release stays where it is until its new ring has it too.
    """
    from edgeloop.bootstrap import App
    from edgeloop.fleet.rollouts.moves import move_node
    from edgeloop.fleet.rollouts.roster import Roster
    from edgeloop.samples.records import now

    if clear == (ring is not None):
        what = "a number and --clear are two wishes" if clear else "no ring was named"
        raise NoRing(f"{node!r:.80}: {what}: give a number, or --clear for the ring of its node.yaml")
    _check("node", node)
    _check("fleet", fleet)
    app = App(context.settings)
    services = {name: app.service(name) for name in app.services()}
    waits = move_node(app.fleet, app.channel, services, node, ring, who, reason, now(), at_once=at_once, name=fleet)
    where = "the ring of its node.yaml" if ring is None else f"ring {ring}"
    told = f"{node} goes to {where} when it next looks"
    if not Roster(app.fleet.database).rows(node=node):
        told += "; no node of this name was heard yet"
    said = {"node": node, "ring": ring, "fleet": fleet, "waits": waits}
    context.result(said, f"{waits}; --now moves it at once" if waits else told)
