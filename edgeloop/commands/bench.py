"""``edgeloop bench``: measurements, as ratios and medians, each by one command."""

from __future__ import annotations

from pathlib import Path

import click

from edgeloop.commands.bench_delivery import delivery
from edgeloop.commands.bench_rollout import rollout
from edgeloop.commands.output import Context


@click.group()
def bench() -> None:
    """Measure edgeloop on this machine."""


bench.add_command(delivery)
bench.add_command(rollout)


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


@bench.command("retrain")
@click.option(
    "--data",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    required=True,
    help="Folder that holds the digits.",
)
@click.option(
    "--backbone",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    required=True,
    help="LiteRT extractor; its features are computed once and kept.",
)
@click.option(
    "--samples", type=click.IntRange(200, 1_000_000), default=10_000, show_default=True, help="To learn from."
)
@click.option("--runs", type=click.IntRange(1, 20), default=3, show_default=True, help="Runs; medians are printed.")
@click.option("--full", type=click.IntRange(0), default=500, show_default=True, help="Images to train Xception on.")
@click.option("--epochs", type=click.IntRange(1, 1000), default=1, show_default=True, help="Of that training.")
@click.option("--growth", is_flag=True, help="Also rounds over 1, 2, 4 and 8 times as long a history.")
@click.pass_obj
def retrain(
    context: Context, data: Path, backbone: Path, samples: int, runs: int, full: int, epochs: int, growth: bool
) -> None:
    """Print what a head's retrain costs, from data to registered candidate, beside a full fine-tune."""
    from edgeloop.bench.retrain.bench import RetrainOptions, bench_retrain
    from edgeloop.bench.retrain.result import retrain_text
    from edgeloop.settings import make_home

    options = RetrainOptions(data, backbone, samples, runs, full, epochs, growth)
    folder = make_home(context.settings.home) / "bench" / "retrain"
    result = bench_retrain(context.settings, folder, options, context.say)
    context.result(result.model_dump(mode="json"), retrain_text(result))


@bench.command("gate")
@click.option("--rounds", type=click.IntRange(10, 10_000), default=500, show_default=True, help="Rounds per setting.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Makes the rounds repeatable.")
@click.pass_obj
def gate(context: Context, rounds: int, seed: int) -> None:
    """Print how often the gate promotes what is no better, and how often what is."""
    from edgeloop.bench.gate import bench_gate, gate_text

    result = bench_gate(rounds, seed, context.say)
    context.result(result.model_dump(mode="json"), gate_text(result))


@bench.command("stream")
@click.argument("what", metavar="DIR_OR_NAME")
@click.option("--seeds", type=click.IntRange(1, 50), default=5, show_default=True, help="Splits and draws to repeat.")
@click.option("--methods", default="", help="Comma-separated; all if left out. frozen and joint are always run.")
@click.option("--limit", type=click.IntRange(50), default=5000, show_default=True, help="Rows of a bucket, at most.")
@click.option(
    "--budget",
    type=click.FloatRange(0, min_open=True),
    default=30.0,
    show_default=True,
    help="CPU-seconds to learn in a round; a candidate that took more is dropped.",
)
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
@click.option("--json", "save", type=click.Path(path_type=Path, dir_okay=False), help="Write the result there as JSON.")
@click.option("--html", type=click.Path(path_type=Path, dir_okay=False), help="Write the result there as a page.")
@click.pass_obj
def stream(
    context: Context,
    what: str,
    seeds: int,
    methods: str,
    limit: int,
    budget: float,
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
    options = StreamOptions(seeds, chosen, limit, delay, data, backbone, budget)
    result = bench_stream(what, make_home(context.settings.home), options, context.say)
    if save:
        write_report(save, result.model_dump_json(indent=2) + "\n")
    if html:
        write_report(html, stream_html(result))
    context.result(result.model_dump(mode="json"), stream_text(result))


@bench.command("report")
@click.argument(
    "results",
    nargs=-1,
    required=True,
    metavar="RESULT...",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
)
@click.option(
    "--markdown", type=click.Path(path_type=Path, dir_okay=False), required=True, help="Page to write the tables to."
)
@click.pass_obj
def report(context: Context, results: tuple[Path, ...], markdown: Path) -> None:
    """Write saved results of the stream benchmark as tables with a figure, and say what was not reached."""
    from edgeloop.bench.stream.published import benchmarks_page, figure_of, missed, read_results
    from edgeloop.bench.stream.report import write_bytes, write_report

    found = read_results(results)
    figure = markdown.with_suffix(".png")
    before = markdown.read_text(encoding="utf-8") if markdown.is_file() else None
    page = benchmarks_page(found, before, figure.name)
    write_bytes(figure, figure_of(found))
    write_report(markdown, page)
    lines = missed(found)
    value = {"page": markdown, "figure": figure, "streams": [one.stream for one in found], "not_reached": lines}
    context.result(value, "\n".join([f"{markdown} and {figure}", *(f"not reached: {line}" for line in lines)]))
