"""``edgeloop channel``: the keys and signatures by which nodes believe what they are told to run."""

from __future__ import annotations

import getpass
from pathlib import Path

import click

from edgeloop.commands.channel_offline import adopt, request
from edgeloop.commands.channel_show import show
from edgeloop.commands.files import write_file
from edgeloop.commands.output import Context


@click.group()
def channel() -> None:
    """The signed channel: which releases may run, and which ring runs which of them."""


@channel.command("init")
@click.option("--root", type=click.Path(path_type=Path, dir_okay=False), help="Write the root that nodes trust there.")
@click.pass_obj
def init(context: Context, root: Path | None) -> None:
    """Make keys and metadata if there are none; show where the root is. Safe to run again."""
    from edgeloop.bootstrap import App

    settings = context.settings
    data = App(settings).channel.ensure()
    if root is not None:
        write_file(root, "--root", data)
    where = root or settings.keys_folder / "root.json"
    context.result(
        {"root": str(where), "keys": str(settings.keys_folder)},
        f"nodes trust {where}; the keys are in {settings.keys_folder}",
    )


@channel.command("refresh")
@click.pass_obj
def refresh(context: Context) -> None:
    """Sign anew what is past half of its lifetime and has its key here. Rollout ticks do so too, twice a week."""
    from edgeloop.bootstrap import App

    signed = App(context.settings).channel.refresh(every=True)
    context.result({"signed": signed}, f"signed {', '.join(signed)}" if signed else "nothing is near its end")


@channel.command("rotate")
@click.argument("role")
@click.pass_obj
def rotate(context: Context, role: str) -> None:
    """Replace the key of ROLE: root, targets, releases, rings, snapshot or timestamp."""
    from edgeloop.bootstrap import App

    App(context.settings).channel.rotate(role)
    context.result({"rotated": role}, f"{role} has a new key in {context.settings.keys_folder}; keep it")


@channel.command("withdraw")
@click.argument("service")
@click.argument("release")
@click.option("--by", "who", default=getpass.getuser, show_default="your user name", help="Who says so.")
@click.option("--reason", default="no reason given", help="Why; kept in the ledger.")
@click.pass_obj
def withdraw(context: Context, service: str, release: str, who: str, reason: str) -> None:
    """Never let a node of SERVICE load RELEASE (sha256:…) again, nor the alias bring it back."""
    from edgeloop.bootstrap import App

    app = App(context.settings)
    version = app.fleet.version_of(service, release)
    app.fleet.record(service, "withdraw", release, verdict="fail", reason=reason, who=who, version=version)
    app.channel.withdraw(service, release)
    context.result({"withdrawn": release}, f"{release} of {service} may not be loaded any more")


for command in (show, request, adopt):
    channel.add_command(command)
