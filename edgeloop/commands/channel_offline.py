"""``edgeloop channel request`` and ``adopt``: what is signed elsewhere, carried by hand."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from edgeloop.commands.files import read_file, write_file
from edgeloop.commands.output import Context

if TYPE_CHECKING:
    from edgeloop.fleet.approvals import Change
    from edgeloop.fleet.publisher import Publisher


@click.command("request")
@click.argument("service")
@click.argument("release")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--withdraw", is_flag=True, help="Ask that it may not run any more, instead of that it may.")
@click.pass_obj
def request(context: Context, service: str, release: str, file: Path, withdraw: bool) -> None:
    """Write to FILE what has to be signed for RELEASE (sha256:…) of SERVICE, or for the word renew.

    The signer runs  edgeloop release sign --request FILE --out ANSWER.
    """
    from edgeloop.bootstrap import App

    channel = App(context.settings).channel
    change = _change(channel, service, None if release == "renew" else release, "withdraw" if withdraw else "approve")
    write_file(file, "FILE", channel.request(change).to_bytes())
    context.result({"request": str(file), "act": change.act}, f"{file} asks to {change.text()}")


def _change(channel: Publisher, service: str, release: str | None, act: Literal["approve", "withdraw"]) -> Change:
    """What waits already is asked for as it is, with what is said beside it."""
    from edgeloop.fleet.approvals import Change

    if release is None:
        return Change(service, "renew")
    waits = channel.asked(service, release)
    return waits if waits is not None and waits.act == act else Change(service, act, release)


@click.command("adopt")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.pass_obj
def adopt(context: Context, file: Path) -> None:
    """Publish the signed answer in FILE. What is put into the store is adopted by the next tick without this."""
    from edgeloop.bootstrap import App
    from edgeloop.fleet.offline import LARGEST, Reply, read

    reply = read(Reply, read_file(file, "FILE", LARGEST + 1), str(file))
    is_new = App(context.settings).channel.adopt(reply)
    context.result(
        {"adopted": is_new, "act": reply.act, "service": reply.service, "release": reply.release},
        f"published: {reply.change.text()}" if is_new else "it is published already",
    )
