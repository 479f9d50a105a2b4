"""``edgeloop bench``: measurements, as ratios and medians, each by one command."""

from __future__ import annotations

import click

from edgeloop.commands.output import Context


@click.group()
def bench() -> None:
    """Measure edgeloop on this machine."""


@bench.command("loop")
@click.option("--service", "name", default="wine-rater", show_default=True, help="Service to measure with.")
@click.option("--rounds", type=click.IntRange(1, 20), default=3, show_default=True, help="Rounds to measure.")
@click.pass_obj
def loop(context: Context, name: str, rounds: int) -> None:
    """Print where a round's wall time goes: compute, Prefect, MLflow, store, validation."""
    from edgeloop.bench.loop import bench_loop, bench_text

    result = bench_loop(context.settings, name, rounds, context.say)
    context.result(result.model_dump(mode="json"), bench_text(result))
