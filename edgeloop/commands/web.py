"""``edgeloop web``: the fleet page."""

from __future__ import annotations

from typing import Any

import click

from edgeloop.commands.output import Context


@click.command()
@click.option("--port", type=click.IntRange(0, 65535), default=8080, show_default=True, help="Port; 0: any free one.")
@click.option("--host", default="127.0.0.1", show_default=True, help="A loopback address: others must not reach it.")
@click.pass_obj
def web(context: Context, port: int, host: str) -> None:
    """Serve the fleet page on this machine until Ctrl-C; it shows and changes nothing."""
    from edgeloop.web.page import create_page
    from edgeloop.web.serve import address_of, bind, serve

    # Read once now, so that a setting that cannot be used is said here and not on the page.
    home = context.settings.home.absolute()
    with bind(host, port) as listener:
        page = create_page(_looker(context))
        context.result({"address": address_of(listener)}, f"The fleet page of {home} is at {address_of(listener)}")
        serve(page, listener)


def _looker(context: Context) -> Any:
    lookout: Any = None

    def look() -> dict[str, Any]:
        nonlocal lookout
        if lookout is None:
            # Half of what there is to import; the page listens without it.
            from edgeloop.web.overview import Lookout

            lookout = Lookout(lambda: context.settings)
        found: dict[str, Any] = lookout()
        return found

    return look
