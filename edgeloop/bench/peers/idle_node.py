"""A whole node whose model costs nothing, to see what the rest costs: ``python -m … --config node.yaml``.

Everything is the product's: intake, gateway, selection, spool, results. Every input is captured.
"""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path

import numpy as np

from edgeloop.clients.models import Answer
from edgeloop.edge.config import load_node_settings
from edgeloop.edge.logs import start_logging
from edgeloop.edge.node import Node
from edgeloop.edge.runtime import Loaded
from edgeloop.samples.service import ImageInput, NodeConfig, Selection


class NoModel:
    """Gives every input the same answer at once."""

    labels: tuple[str, ...] | None = ("no", "yes")
    backbone_digest: str | None = "sha256:none"
    _answer = Answer("yes", 0.9, (0.1, 0.9), np.zeros(4, np.float16))

    def predict(self, payload: bytes) -> Answer:
        """The same answer."""
        return self._answer


async def serve(config: Path) -> None:
    node = Node(load_node_settings(config))
    for service in node.settings.services:
        about = NodeConfig(
            service=service,
            kind="image-classifier",
            image=ImageInput(size=16),
            labels=["no", "yes"],
            selection=Selection(audit=1.0),
        )
        node.runtime.switch(service, Loaded("sha256:none", "0", about, NoModel()))
    await node.serve()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, required=True)
    start_logging()
    asyncio.run(serve(parser.parse_args().config))


if __name__ == "__main__":
    main()
