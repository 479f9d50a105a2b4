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


@bench.command("stream")
@click.argument("what", metavar="DIR_OR_NAME")
@click.option("--seeds", type=click.IntRange(1, 50), default=5, show_default=True, help="Splits and draws to repeat.")
@click.option("--methods", default="", help="Comma-separated; all if left out. frozen and joint are always run.")
@click.option("--limit", type=click.IntRange(50), default=2000, show_default=True, help="Rows of a bucket, at most.")
@click.option("--delay", type=click.IntRange(0, 1), default=0, show_default=True, help="Rounds that labels come late.")
@click.option(
    "--data",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Folder that holds the data of a named stream.",
)
@click.option(
    "--backbone",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="LiteRT extractor, for streams of photos.",
)
@click.option("--save", type=click.Path(path_type=Path, dir_okay=False), help="Write the result there as JSON.")
@click.option("--html", type=click.Path(path_type=Path, dir_okay=False), help="Write the result there as a page.")
@click.pass_obj
def stream(
    context: Context,
    what: str,
    seeds: int,
    methods: str,
    limit: int,
    delay: int,
    data: Path | None,
    backbone: Path | None,
    save: Path | None,
    html: Path | None,
) -> None:
    """Put every way of learning through a drifting stream: a folder with stream.yaml, or a known name."""
    from edgeloop.bench.stream.bench import StreamOptions, bench_stream
    from edgeloop.bench.stream.report import stream_html, stream_text, write_report
    from edgeloop.settings import make_home

    chosen = tuple(name.strip() for name in methods.split(",") if name.strip())
    options = StreamOptions(seeds, chosen, limit, delay, data, backbone)
    result = bench_stream(what, make_home(context.settings.home), options, context.say)
    if save:
        write_report(save, result.model_dump_json(indent=2) + "\n")
    if html:
        write_report(html, stream_html(result))
    context.result(result.model_dump(mode="json"), stream_text(result))
