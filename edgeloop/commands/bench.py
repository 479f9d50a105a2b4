"""``edgeloop bench``: measurements, as ratios and medians, each by one command."""

from __future__ import annotations

from pathlib import Path

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


@bench.command("edge")
@click.option(
    "--backbone",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="LiteRT extractor to measure with; else an Xception of 96 pixels is exported.",
)
@click.option(
    "--kserve",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="A Python that has kserve and ai-edge-litert, to measure beside it.",
)
@click.option("--runs", type=click.IntRange(1, 20), default=3, show_default=True, help="Runs; medians are printed.")
@click.option("--seconds", type=click.FloatRange(0.5, 60), default=5.0, show_default=True, help="Of each measurement.")
@click.option("--messages", type=click.IntRange(100, 100_000), default=3000, show_default=True, help="Over MQTT.")
@click.option("--swaps", type=click.IntRange(1, 100), default=20, show_default=True, help="Hot swaps under load.")
@click.pass_obj
def edge(
    context: Context,
    backbone: Path | None,
    kserve: Path | None,
    runs: int,
    seconds: float,
    messages: int,
    swaps: int,
) -> None:
    """Print what a node costs and how fast it answers, beside the bare interpreter, KServe and a bare subscriber."""
    from edgeloop.bench.edge import EdgeOptions, bench_edge, edge_text
    from edgeloop.settings import make_home

    options = EdgeOptions(backbone, kserve, runs, seconds, messages, swaps)
    folder = make_home(context.settings.home) / "bench" / "edge"
    result = bench_edge(folder, options, context.say)
    context.result(result.model_dump(mode="json"), edge_text(result))
