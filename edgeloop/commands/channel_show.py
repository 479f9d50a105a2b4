"""``edgeloop channel show``: what is signed, by whom, until when."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from edgeloop.commands.output import Context, table

if TYPE_CHECKING:
    from edgeloop.fleet.show import ApprovalView, ChannelView
    from edgeloop.settings import Settings

#: Most moved nodes of a fleet that are named.
_NAMED = 20


@click.command("show")
@click.pass_obj
def show(context: Context) -> None:
    """Show who signs what until when, which keys are here, and where approved releases are to run.

    Nodes that were moved to another ring are named too. Writes nothing.
    """
    view = view_of(context.settings)
    if view is None:
        context.result(
            {"snapshot": 0, "roles": [], "services": {}, "moves": {}, "pending": []}, "there is no channel yet"
        )
        return
    context.result(asdict(view), _text(view))


def view_of(settings: Settings) -> ChannelView | None:
    """The channel of these settings; None before there is one."""
    from edgeloop.clients.objects import open_store
    from edgeloop.fleet.channel import open_channel

    return open_channel(open_store(settings.store_url), settings.keys_folder).show()


def _text(view: ChannelView) -> str:
    roles = [
        [r.role, str(r.version), f"{r.expires:%Y-%m-%d %H:%M}", r.life, str(r.threshold), "yes" if r.here else "no"]
        for r in view.roles
    ]
    parts = [table(roles, ["role", "version", "expires (UTC)", "life", "threshold", "key here"])]
    rows = [_row(service, one) for service, approved in view.services.items() for one in approved]
    if rows:
        parts.append(table(rows, ["service", "approved release", "at", "rings", "on its way to"]))
    parts += [_moved(fleet, rings) for fleet, rings in view.moves.items()]
    parts += [f"waits for a signature: {one.change.text()}{', answered' * one.signed}" for one in view.pending]
    return "\n\n".join(parts)


def _moved(fleet: str, rings: Mapping[str, int]) -> str:
    named = ", ".join(f"{node} to ring {ring}" for node, ring in list(rings.items())[:_NAMED])
    more = f" and {len(rings) - _NAMED} more" if len(rings) > _NAMED else ""
    return f"moved in fleet {fleet}: {named}{more}"


def _row(service: str, one: ApprovalView) -> list[str]:
    rings, coming = (", ".join(map(str, found)) for found in (one.rings, one.next))
    return [service, one.release, str(one.custom.get("at", ""))[:16], rings, coming]
