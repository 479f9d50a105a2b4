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
def serve(folder: Path, address: str, access: Path | None, is_open: bool, memory_mb: int | None, inflight: int) -> None:
    """Answer with the release in FOLDER over V1 and V2; no store, no broker, nothing is collected or written."""
    # Before numpy is imported: threads of its own would fight the interpreters for the cores.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from edgeloop.edge.logs import start_logging
    from edgeloop.edge.standalone import serve_folder

    start_logging()
    serve_folder(folder, address, access=access, is_open=is_open, memory_mb=memory_mb, inflight=inflight)
