"""``edgeloop drift``: what the watch of a service's champion found, against which threshold, and what comes next."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgeloop.commands.output import Context, table
from edgeloop.errors import BadInput

if TYPE_CHECKING:
    from edgeloop.learning.drift.kept import WatchState


class NotWatched(BadInput):
    """No look at this service was ever finished."""


class NothingToDraw(BadInput):
    """A watch has tested nothing that could be drawn."""


class UnwritablePicture(BadInput):
    """A picture cannot be written where it was asked for."""


@click.command()
@click.argument("service")
@click.option("--plot", "target", type=click.Path(path_type=Path, dir_okay=False), help="Draw the watch to this PNG.")
@click.pass_obj
def drift(context: Context, service: str, target: Path | None) -> None:
    """Show whether what nodes see of SERVICE has changed since its champion was judged."""
    from edgeloop.bootstrap import App
    from edgeloop.learning.drift.kept import load_state
    from edgeloop.learning.drift.telling import as_json

    app = App(context.settings)
    found = load_state(app.store, app.service(service).name)
    if found is None:
        raise NotWatched(
            f"{service} has no drift watch yet: promote a first model; then the flow monitor looks every minute"
            " (edgeloop up)"
        )
    state = found[0]
    if target:
        _draw(state, target)
    asked = [r for r in app.fleet.events(service, "drift", state.champion) if r["key"].startswith(f"{state.watch}-")]
    value = as_json(state) | {"ledger": [{"at": r["at"].isoformat(), "reason": r["reason"]} for r in asked]}
    context.result(value, _text(state, asked[0]["reason"] if asked else None))


def _draw(state: WatchState, target: Path) -> None:
    from edgeloop.learning.drift.plot import plot_drift

    if not state.periods and not any(c.points for c in state.courses):
        raise NothingToDraw(f"the watch of {state.service} has tested nothing yet: wait for audit samples, then draw")
    if target.suffix.lower() != ".png":
        raise UnwritablePicture(f"--plot {target} does not end in .png: name a PNG file")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        plot_drift(state.courses, state.findings, target, state.periods)
    except OSError as error:
        why = error.strerror or type(error).__name__
        raise UnwritablePicture(
            f"--plot {target} cannot be written ({why}): name a file in a folder of yours"
        ) from error


def _text(state: WatchState, asked: str | None) -> str:
    from edgeloop.learning.drift.telling import (
        HEADER,
        PERIOD_HEADER,
        accuracy_line,
        headline,
        next_step,
        period_rows,
        table_rows,
    )

    blocks = [
        f"{headline(state)}\ncompared with {state.reference}; last look {state.at:%Y-%m-%d %H:%M} UTC",
        table(table_rows(state), HEADER) if state.courses else "",
        accuracy_line(state) or "",
        table(period_rows(state), PERIOD_HEADER) if state.periods else "",
        f"ledger: {asked}" if asked else "",
        f"next: {next_step(state)}",
    ]
    return "\n\n".join(block for block in blocks if block)
