"""``edgeloop node``: the edge process."""

from __future__ import annotations

import os
from pathlib import Path

import click


@click.command()
@click.option("--config", required=True, type=click.Path(path_type=Path, dir_okay=False), help="The node's node.yaml.")
def node(config: Path) -> None:
    """Run an edge node: answer devices, choose samples, keep to the ring's release."""
    # Before numpy is imported: threads of its own would fight the interpreters for the cores.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from edgeloop.edge.config import load_node_settings
    from edgeloop.edge.logs import start_logging
    from edgeloop.edge.node import run

    settings = load_node_settings(config)
    start_logging()
    run(settings)
