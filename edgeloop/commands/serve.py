"""``edgeloop serve``: one packed release behind an address, as images do it that carry their model."""

from __future__ import annotations

import os
from pathlib import Path

import click


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option("--http", "address", default="127.0.0.1:8080", help="Address to answer on, host:port.")
@click.option("--access", type=click.Path(path_type=Path, dir_okay=False), help="Who may ask what: access.yaml.")
@click.option("--open", "is_open", is_flag=True, help="Answer everybody who reaches the address, on any address.")
@click.option("--memory-mb", type=click.IntRange(min=32), help="Most resident memory in MiB (default: no limit).")
@click.option("--inflight", type=click.IntRange(1, 1000), default=32, help="Most inputs in work at once.")
@click.option("--node", envvar="EDGELOOP_NODE", help="Report to the broker as this node (EDGELOOP_NODE).")
@click.option("--broker", envvar="EDGELOOP_BROKER", help="Where --node reports, mqtt[s]://... (EDGELOOP_BROKER).")
@click.option("--ring", envvar="EDGELOOP_RING", type=click.IntRange(min=0), default=0, help="Its ring (EDGELOOP_RING).")
@click.option(
    "--report-seconds",
    envvar="EDGELOOP_REPORT_SECONDS",
    type=click.FloatRange(min=0, min_open=True),
    default=30.0,
    help="Between reports (EDGELOOP_REPORT_SECONDS).",
)
def serve(
    folder: Path,
    address: str,
    access: Path | None,
    is_open: bool,
    memory_mb: int | None,
    inflight: int,
    node: str | None,
    broker: str | None,
    ring: int,
    report_seconds: float,
) -> None:
    """Answer with the release in FOLDER over V1 and V2; no store, nothing is collected or written.

    With --node it also reports what it counts, as a node does, so that a rollout can judge it.
    """
    if node and not broker:
        raise click.UsageError("--node has no broker to report to: add --broker mqtt://HOST:PORT")
    # Before numpy is imported: threads of its own would fight the interpreters for the cores.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from edgeloop.edge.logs import start_logging
    from edgeloop.edge.standalone import serve_folder
    from edgeloop.edge.telling import Teller

    start_logging()
    teller = Teller(broker, node, ring, report_seconds) if broker and node else None
    serve_folder(folder, address, access=access, is_open=is_open, memory_mb=memory_mb, inflight=inflight, teller=teller)
