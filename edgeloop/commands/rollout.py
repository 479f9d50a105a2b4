"""``edgeloop rollout`` and ``edgeloop rollback``: how releases move through the rings, and what people say to that."""

from __future__ import annotations

import getpass
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from edgeloop.commands.output import Context, table

if TYPE_CHECKING:
    from edgeloop.bootstrap import App
    from edgeloop.fleet.rollouts.status import RolloutStatus

_WATCH_SECONDS = 1.0


def _who(function: Callable[..., Any]) -> Callable[..., Any]:
    """Options of every command that the ledger keeps."""
    name = click.option("--by", "who", default=getpass.getuser, show_default="your user name", help="Who says so.")
    why = click.option("--reason", default="", help="Why; kept in the ledger.")
    return name(why(function))


def _app(context: Context) -> App:
    from edgeloop.bootstrap import App

    return App(context.settings)


def _show(context: Context, status: RolloutStatus) -> None:
    context.result(status.model_dump(mode="json"), status_text(status))


def status_text(status: RolloutStatus) -> str:
    """A rollout for a terminal: one line of itself, then one for each ring."""
    release = status.release.removeprefix("sha256:")[:12]
    head = f"{status.service}: rollout {status.rollout} of {release} is {status.state}: {status.reason}"
    if status.next_look is not None:
        head += f", not before {status.next_look:%Y-%m-%d %H:%M:%S} UTC"
    if status.dropped:
        head += f"\n{status.dropped}"
    rows = [
        [str(r.ring), r.state, str(r.batch), f"{r.switched} of {r.online}", str(r.nodes), str(r.failed)]
        for r in status.rings
    ]
    return "\n".join([head, table(rows, ["ring", "state", "batch", "switched", "nodes", "failed"])] if rows else [head])


@click.group()
def rollout() -> None:
    """How a release moves through the rings of its service."""


@rollout.command("plan")
@click.argument("service")
@click.argument("version", required=False)
@click.pass_obj
def plan(context: Context, service: str, version: str | None) -> None:
    """What a rollout of VERSION (by default the newest release) would do, ring by ring. Changes nothing."""
    from edgeloop.fleet.rollouts.plan import plan_rollout, with_changes
    from edgeloop.fleet.rollouts.tick import refs_of

    app = _app(context)
    wanted = app.service(service)
    found = plan_rollout(app.fleet, app.channel, wanted, version)
    app.check_rollout(wanted, found.release)
    if found.target != "agent":
        found = with_changes(found, app.targets(found.target), refs_of(app.fleet, app.images))
    context.result(found.model_dump(mode="json"), found.text())


@rollout.command("start")
@click.argument("service")
@click.argument("version")
@_who
@click.pass_obj
def start(context: Context, service: str, version: str, who: str, reason: str) -> None:
    """Roll VERSION out, also when it was taken back or aborted before. A scheduled tick goes on with it."""
    from edgeloop.fleet.rollout import describe_rollout
    from edgeloop.fleet.rollout import start as begin
    from edgeloop.fleet.rollouts.plan import release_named
    from edgeloop.fleet.targets.agent import AgentTarget

    app = _app(context)
    release = release_named(app.fleet, service, version)
    why, wanted = reason or f"version {version} by hand", app.service(service)
    app.check_rollout(wanted, release)
    AgentTarget(app.channel).refuse_unapproved(service, release)
    if not begin(app.fleet, app.channel, wanted, release, why, who, again=True):
        context.say(f"nothing was begun: version {version} is under way or queued, or all rings run it")
    _show(context, describe_rollout(app.fleet, service))


@rollout.command("status")
@click.argument("service")
@click.option("--watch", is_flag=True, help="Print every change until it ends or waits for a person.")
@click.pass_obj
def status(context: Context, service: str, watch: bool) -> None:
    """Where the newest rollout of SERVICE stands, and the one that it waits for."""
    from edgeloop.fleet.rollouts.status import describe_open

    app = _app(context)
    app.service(service)
    found = describe_open(app.fleet, service)
    while watch and not (found[0].has_ended or found[0].waits in {"person", "pause", "approval"}):
        context.say("\n".join(map(status_text, found)))
        before = found
        while (found := describe_open(app.fleet, service)) == before:
            time.sleep(_WATCH_SECONDS)
    context.result(found[-1].model_dump(mode="json"), "\n".join(map(status_text, found)))


@rollout.command("approve")
@click.argument("service")
@click.option("--ring", type=click.IntRange(min=0), required=True, help="Ring that may switch.")
@_who
@click.pass_obj
def approve(context: Context, service: str, ring: int, who: str, reason: str) -> None:
    """Let a ring switch that waits for a word (`approve: true` in the strategy)."""
    from edgeloop.fleet import rollout as machine

    _show(context, machine.approve(_app(context).fleet, service, ring, who, reason))


@rollout.command("pause")
@click.argument("service")
@_who
@click.pass_obj
def pause(context: Context, service: str, who: str, reason: str) -> None:
    """Begin no further batch. What began is judged on, and taken back when it fails."""
    from edgeloop.fleet import rollout as machine

    _show(context, machine.pause(_app(context).fleet, service, who, reason))


@rollout.command("resume")
@click.argument("service")
@_who
@click.pass_obj
def resume(context: Context, service: str, who: str, reason: str) -> None:
    """Go on after a pause, or have patience once more with a ring that is held."""
    from edgeloop.fleet import rollout as machine

    _show(context, machine.resume(_app(context).fleet, service, who, reason))


@rollout.command("abort")
@click.argument("service")
@_who
@click.pass_obj
def abort(context: Context, service: str, who: str, reason: str) -> None:
    """End it here: the unfinished ring goes back, rings that passed keep the release."""
    from edgeloop.fleet import rollout as machine

    _show(context, machine.abort(_app(context).fleet, service, who, reason or "no reason given"))


@rollout.command("revert")
@click.argument("service")
@_who
@click.pass_obj
def revert(context: Context, service: str, who: str, reason: str) -> None:
    """Take back what is under way: every ring goes to the release before."""
    from edgeloop.fleet import rollout as machine

    _show(context, machine.revert(_app(context).fleet, service, who, reason or "no reason given"))


@click.command("rollback")
@click.argument("service")
@_who
@click.pass_obj
def rollback(context: Context, service: str, who: str, reason: str) -> None:
    """Take SERVICE to the release that was good before, on all rings at once."""
    from edgeloop.fleet import rollout as machine

    app = _app(context)
    _show(context, machine.rollback(app.fleet, app.channel, app.service(service), who, reason or "no reason given"))
