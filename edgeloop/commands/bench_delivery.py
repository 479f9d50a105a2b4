"""``edgeloop bench delivery``: what a release costs on the way to a node."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import click

from edgeloop.commands.output import Context


@click.command("delivery")
@click.option(
    "--backbone",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="LiteRT extractor to deliver; else an Xception of 96 pixels is exported.",
)
@click.option("--base", help="Image below, REGISTRY/REPOSITORY@sha256:… or oci:FOLDER@sha256:…; else a stand-in.")
@click.option("--labels", type=click.IntRange(2, 10_000), default=10, show_default=True, help="Of the service.")
@click.option("--rings", type=click.IntRange(1, 1000), default=20, show_default=True, help="Of the fleet.")
@click.option("--services", type=click.IntRange(1, 1000), default=5, show_default=True, help="In the fleet's channel.")
@click.option("--figure", type=click.Path(path_type=Path, dir_okay=False), help="Draw the result there, as PNG.")
@click.option("--plain-http", is_flag=True, help="Speak http to registries that are not on this machine.")
@click.pass_obj
def delivery(
    context: Context,
    backbone: Path | None,
    base: str | None,
    labels: int,
    rings: int,
    services: int,
    figure: Path | None,
    plain_http: bool,
) -> None:
    """Print the bytes that reach a node for a release, a new head and a fine-tune, beside images and deltas."""
    from edgeloop.bench.delivery.bench import DeliveryOptions, bench_delivery
    from edgeloop.bench.delivery.image import own_arch
    from edgeloop.bench.delivery.result import delivery_text
    from edgeloop.bench.delivery.travel import Fleet
    from edgeloop.commands.release_push import open_bases
    from edgeloop.settings import make_home

    options = DeliveryOptions(backbone, labels, Fleet(rings, services))
    with ExitStack() as stack:
        arch = own_arch()
        found = open_bases(base, (arch,), plain_http, stack).get(arch)
        folder = make_home(context.settings.home) / "bench" / "delivery"
        result = bench_delivery(folder, options, found, context.say)
    if figure:
        from edgeloop.bench.delivery.plots import delivery_png
        from edgeloop.bench.stream.report import write_bytes

        write_bytes(figure, delivery_png(result))
    context.result(result.model_dump(mode="json"), delivery_text(result))
