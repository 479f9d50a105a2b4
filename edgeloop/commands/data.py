"""``edgeloop data``: bring data sets into the home."""

from __future__ import annotations

from pathlib import Path

import click

from edgeloop.commands.output import Context
from edgeloop.settings import make_home
from edgeloop.sources.catalog import CATALOG, get_dataset


@click.group()
def data() -> None:
    """Data sets to try edgeloop with."""


@data.command("get")
@click.argument("name")
@click.option("--from", "source", type=click.Path(path_type=Path), help="Take it from this directory instead.")
@click.pass_obj
def get(context: Context, name: str, source: Path | None) -> None:
    """Fetch the data set NAME from its official address, or from a local directory."""
    home = make_home(context.settings.home)
    said: set[int] = set()

    def progress(file: str, done: int, of: int | None) -> None:
        tenth = 10 * done // of if of else 0
        if tenth not in said:
            said.add(tenth)
            context.say(f"{file}: {done / 1e6:.1f} of {of / 1e6:.1f} MB" if of else f"{file}: {done / 1e6:.1f} MB")

    where = get_dataset(name, home, source, progress)
    if CATALOG[name].files:
        context.result({"dataset": name, "path": str(where)}, f"{name} is in {where}")
    else:
        context.result({"dataset": name, "path": None}, f"{name}: {CATALOG[name].about}")
