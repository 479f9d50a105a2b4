"""``edgeloop release sign``: the approver's signature, given where its key is kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgeloop.commands.files import read_file, write_file
from edgeloop.commands.output import Context
from edgeloop.errors import BadInput

if TYPE_CHECKING:
    from edgeloop.fleet.offline import Reply, Request
    from edgeloop.settings import Settings


class NothingToSign(BadInput):
    """No such change waits for a signature."""


class NotConfirmed(BadInput):
    """Nobody said that this shall be signed."""


@click.command("sign")
@click.argument("service")
@click.argument("release")
@click.option("--request", type=click.Path(path_type=Path, dir_okay=False), help="File of the request.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="File for the signed answer.")
@click.option("--yes", is_flag=True, help="Do not ask, as in a CI job.")
@click.pass_obj
def sign(context: Context, service: str, release: str, request: Path | None, out: Path | None, yes: bool) -> None:
    """Sign what waits for the key ``releases``: RELEASE (sha256:…) of SERVICE, or the word renew.

    Needs releases.pem and root.json in the folder of keys. Without --request the request is taken from the store, and
    without --out the answer is put there, where the next tick adopts it.
    """
    from edgeloop.fleet.offline import sign as give
    from edgeloop.fleet.signing import Keys

    settings = context.settings
    asked = _asked(settings, service, None if release == "renew" else release, request)
    context.say(_text(asked))
    if not yes and (context.as_json or not click.confirm("sign this?", err=True)):
        raise NotConfirmed(f"{asked.change.text()} was not confirmed: look at it and add --yes")
    reply = give(asked, Keys(settings.keys_folder))
    where = _put(settings, reply, out)
    context.result(
        {
            "service": service,
            "act": asked.act,
            "release": asked.release,
            "signed": sorted(reply.roles),
            "answer": where,
        },
        f"signed to {asked.change.text()}; the answer is {where}",
    )


def _asked(settings: Settings, service: str, release: str | None, path: Path | None) -> Request:
    from edgeloop.fleet.offline import LARGEST, Request, read

    if path is None:
        found = _posted(settings, service, release)
    else:
        found = read(Request, read_file(path, "--request", LARGEST + 1), f"--request {path}")
    if (found.service, found.release) != (service, release):
        raise NothingToSign(f"the request is to {found.change.text()}, not of {release or 'renew'}: name what it is")
    return found


def _posted(settings: Settings, service: str, release: str | None) -> Request:
    from edgeloop.clients.objects import open_store
    from edgeloop.fleet import pending

    store = open_store(settings.store_url)
    found = pending.posted(store, service, release)
    if found is None:
        raise NothingToSign(f"nothing waits to be signed for {release or 'renew'} of {service} in {store.url}")
    return found


def _put(settings: Settings, reply: Reply, path: Path | None) -> str:
    from edgeloop.clients.objects import open_store
    from edgeloop.fleet import pending

    if path is None:
        return pending.answer(open_store(settings.store_url), reply)
    write_file(path, "--out", reply.to_bytes())
    return str(path)


def _text(asked: Request) -> str:
    """What is signed, for the one who signs; of the manifest as it came, which signing verifies."""
    from edgeloop.samples.releases import parse_release, release_key

    lines = [f"to sign: {asked.change.text()}"]
    if asked.act == "approve" and asked.release:
        text = asked.files.get(release_key(asked.service, asked.release), "")
        made = parse_release(text.encode(), asked.release)
        lines.append(f"  version {made.version!r}, run {made.run_id!r}, dataset {made.dataset!r}")
        for profile, layers in [("as trained", made.layers), *((repr(v.profile), v.layers) for v in made.variants)]:
            lines += [f"  {profile} {layer.role}: {layer.size} bytes, {layer.digest}" for layer in layers]
        lines += [f"  {name!r}: {json.dumps(value)}" for name, value in sorted(asked.custom.items())]
    return "\n".join(lines)
