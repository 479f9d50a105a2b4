"""``edgeloop rollout`` and ``edgeloop rollback``: how releases move through the rings, and what people say to that."""

from __future__ import annotations

import getpass
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click

from edgeloop.commands.output import Context, table

if TYPE_CHECKING:
    from edgeloop.bootstrap import App
    from edgeloop.fleet.rollouts.status import RingStatus, RolloutStatus
    from edgeloop.store import FleetStore

_WATCH_SECONDS = 1.0


def _who(function: Callable[..., Any]) -> Callable[..., Any]:
    """Options of every command that the ledger keeps."""
    name = click.option("--by", "who", default=getpass.getuser, show_default="your user name", help="Who says so.")
    why = click.option("--reason", default="", help="Why; kept in the ledger.")
    return name(why(function))


def _app(context: Context) -> App:
    from edgeloop.bootstrap import App

    return App(context.settings)


def _show(context: Context, fleet: FleetStore, *found: RolloutStatus) -> None:
    """Print where rollouts stand; as JSON the last of them."""
    last = found[-1]
    version = {"version": fleet.version_of(last.service, last.release)}
    context.result(last.model_dump(mode="json") | version, _text(fleet, found))


def _text(fleet: FleetStore, found: Sequence[RolloutStatus]) -> str:
    return "\n".join(status_text(one, fleet.version_of(one.service, one.release)) for one in found)


def _say(context: Context, service: str, word: Callable[[FleetStore], RolloutStatus]) -> None:
    """Say a word about what is under way and show what came of it; of a mistyped service the known ones are named."""
    from edgeloop.fleet.rollouts.commands import RolloutEnded

    app = _app(context)
    try:
        status = word(app.fleet)
    except RolloutEnded:
        app.service(service)
        raise
    _show(context, app.fleet, status)


def status_text(status: RolloutStatus, version: str | None = None) -> str:
    """A rollout for a terminal: one line of itself, with the release's model version, then one for each ring."""
    from edgeloop.fleet.rollouts.plan import release_text

    what = release_text(version, status.release)
    head = f"{status.service}: rollout {status.rollout} of {what} is {status.state}: {status.reason}"
    if status.next_look is not None:
        head += f", not before {status.next_look:%Y-%m-%d %H:%M:%S} UTC"
    if status.dropped:
        head += f"\n{status.dropped}"
    rows = [[str(r.ring), r.state, str(r.batch), *_counted(r), ", ".join(r.approved_by)] for r in status.rings]
    names = ["ring", "state", "batch", "switched", "nodes", "failed", "approved by"]
    names = names if any(r.approved_by for r in status.rings) else names[:-1]
    return "\n".join([head, table([row[: len(names)] for row in rows], names)] if rows else [head])


def _counted(ring: RingStatus) -> list[str]:
    """The counts of a ring; of one that no tick has looked at yet none, since noughts would read as an empty ring."""
    if not ring.nodes and ring.state not in {"skipped", "passed"}:
        return ["-", "-", "-"]
    return [f"{ring.switched} of {ring.online}", str(ring.nodes), str(ring.failed)]


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
    why, wanted = reason or f"version {version} by hand", app.service(service)
    release = release_named(app.fleet, service, version)
    app.check_rollout(wanted, release)
    AgentTarget(app.channel).refuse_unapproved(service, release)
    if not begin(app.fleet, app.channel, wanted, release, why, who, again=True):
        context.say(f"nothing was begun: version {version} is under way or queued, or all rings run it")
    _show(context, app.fleet, describe_rollout(app.fleet, service))


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
        context.say(_text(app.fleet, found))
        before = found
        while (found := describe_open(app.fleet, service)) == before:
            time.sleep(_WATCH_SECONDS)
    _show(context, app.fleet, *found)


@rollout.command("approve")
@click.argument("service")
@click.option("--ring", type=click.IntRange(min=0), required=True, help="Ring that may switch.")
@_who
@click.pass_obj
def approve(context: Context, service: str, ring: int, who: str, reason: str) -> None:
    """Let a ring switch that waits for a word (`approve: true` in the strategy)."""
    from edgeloop.fleet import rollout as machine

    _say(context, service, lambda fleet: machine.approve(fleet, service, ring, who, reason))


@rollout.command("pause")
@click.argument("service")
@_who
@click.pass_obj
def pause(context: Context, service: str, who: str, reason: str) -> None:
    """Begin no further batch. What began is judged on, and taken back when it fails."""
    from edgeloop.fleet import rollout as machine

    _say(context, service, lambda fleet: machine.pause(fleet, service, who, reason))


@rollout.command("resume")
@click.argument("service")
@_who
@click.pass_obj
def resume(context: Context, service: str, who: str, reason: str) -> None:
    """Go on after a pause, or have patience once more with a ring that is held."""
    from edgeloop.fleet import rollout as machine

    _say(context, service, lambda fleet: machine.resume(fleet, service, who, reason))


@rollout.command("abort")
@click.argument("service")
@_who
@click.pass_obj
def abort(context: Context, service: str, who: str, reason: str) -> None:
    """End it here: the unfinished ring goes back, rings that passed keep the release."""
    from edgeloop.fleet import rollout as machine

    _say(context, service, lambda fleet: machine.abort(fleet, service, who, reason or "no reason given"))


@rollout.command("revert")
@click.argument("service")
@_who
@click.pass_obj
def revert(context: Context, service: str, who: str, reason: str) -> None:
    """Take back what is under way: every ring goes to the release before."""
    from edgeloop.fleet import rollout as machine

    _say(context, service, lambda fleet: machine.revert(fleet, service, who, reason or "no reason given"))


@click.command("rollback")
@click.argument("service")
@_who
@click.pass_obj
def rollback(context: Context, service: str, who: str, reason: str) -> None:
    """Take SERVICE to the release that was good before, on all rings at once."""
    from edgeloop.fleet import rollout as machine

    app = _app(context)
    why, wanted = reason or "no reason given", app.service(service)
    _show(context, app.fleet, machine.rollback(app.fleet, app.channel, wanted, who, why, app.check_place))
