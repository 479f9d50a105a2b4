"""``edgeloop release``: how far a version came from its alias to the fleet, and what people say of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from edgeloop.commands.output import Context, table
from edgeloop.commands.release_hook import hook
from edgeloop.commands.release_push import export_command, images_command, push_command
from edgeloop.commands.release_sign import sign

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgeloop.bootstrap import App
    from edgeloop.promotion.acts import Act
    from edgeloop.promotion.records import Promotion


@click.group()
def release() -> None:
    """From the alias `champion` to the fleet: status, approval, packages and signatures."""


for command in (hook, push_command, export_command, images_command, sign):
    release.add_command(command)


def _by(command: Callable[..., None]) -> Callable[..., None]:
    return click.option("--by", metavar="NAME", help="Who says so (default: the name you are logged in with).")(command)


@release.command("status")
@click.argument("service", required=False)
@click.pass_obj
def status(context: Context, service: str | None) -> None:
    """Show the promotion of every service, or the last ten of SERVICE with what people said."""
    from edgeloop.bootstrap import App
    from edgeloop.promotion.kept import Promotions

    app = App(context.settings)
    names = [app.service(service).name] if service else app.services()
    kept = Promotions(app.fleet.database)
    found = [
        {**_described(one), "approvals": [vars(word) for word in kept.words(one)]}
        for name in names
        for one in kept.history(name, limit=10 if service else 1)
    ]
    context.result({"promotions": found}, _status_text(found))


@release.command("approve")
@click.argument("service")
@click.option("--version", help="The version that you looked at; refused when another one waits by now.")
@click.option("--reason", default="", help="Why, for the ledger.")
@_by
@click.pass_obj
def approve(context: Context, service: str, version: str | None, reason: str, by: str | None) -> None:
    """Give the second approval that the promotion of SERVICE waits for."""
    from edgeloop.bootstrap import App
    from edgeloop.promotion import acts

    app = App(context.settings)
    done = acts.approve(app.promotion, app.service(service), _name(by), reason or "approved", version)
    _ask_to_look(app, service)
    context.result(
        done.model_dump(), f"{service}: version {done.version} is approved; the flow release goes on with it"
    )


@release.command("reject")
@click.argument("service")
@click.option("--reason", required=True, help="Why, for the ledger.")
@_by
@click.pass_obj
def reject(context: Context, service: str, reason: str, by: str | None) -> None:
    """Refuse what is being promoted: its rollout stops, nodes go back, and so does the alias."""
    from edgeloop.bootstrap import App
    from edgeloop.promotion import acts

    app = App(context.settings)
    done = acts.reject(app.promotion, app.service(service), _name(by), reason)
    _ask_to_look(app, service)
    context.result(done.model_dump(), _act_text("rejected", done))


@release.command("revert")
@click.argument("service")
@click.option("--reason", required=True, help="Why, for the ledger.")
@click.option("--to", metavar="VERSION", help="Version to go back to (default: the one before).")
@_by
@click.pass_obj
def revert(context: Context, service: str, reason: str, to: str | None, by: str | None) -> None:
    """Go back to the version before: the alias moves, and the fleet after it."""
    from edgeloop.bootstrap import App
    from edgeloop.promotion import acts

    app = App(context.settings)
    done = acts.revert(app.promotion, app.service(service), _name(by), reason, to)
    _ask_to_look(app, service)
    context.result(done.model_dump(), _act_text("reverted", done))


def _ask_to_look(app: App, service: str) -> None:
    """The flow looks every half minute by itself; asked, it looks now. That it cannot be asked changes nothing."""
    from contextlib import suppress

    from edgeloop.errors import EdgeloopError

    with suppress(EdgeloopError):
        app.orchestrator.run("release/release", {"service": service})


def _name(by: str | None) -> str:
    import getpass

    from edgeloop.errors import BadInput

    name = (by or getpass.getuser()).strip()
    if not 0 < len(name) <= 64:
        raise BadInput(f"--by {name!r} is no name: give 1 to 64 letters")
    return name


def _described(one: Promotion) -> dict[str, Any]:
    return {**vars(one), "open": one.is_open}


def _act_text(what: str, done: Act) -> str:
    goes = f"goes back to version {done.back_to}" if done.back_to else "is deleted, there is no version before"
    late = "" if done.alias_moved else " as soon as MLflow answers again"
    return f"{done.service}: version {done.version} is {what}; the alias champion {goes}{late}"


def _status_text(found: list[dict[str, Any]]) -> str:
    if not found:
        return "no version was promoted yet"
    rows = [
        [
            one["service"],
            one["version"],
            one["state"],
            one["who"],
            one["former"] or "-",
            (one["release"] or "-").removeprefix("sha256:")[:12],
            one["reason"] + "".join(f" [{word['verdict']}: {word['who']}]" for word in one["approvals"]),
        ]
        for one in found
    ]
    return table(rows, ["service", "version", "state", "by", "former", "release", "reason"])
