"""The beginning of a node's life on the stage, and its end: until when to wait, and what it died of."""

from __future__ import annotations

import os
import time
from contextlib import closing

from edgeloop.twin.asking import Sender
from edgeloop.twin.confine import Confined
from edgeloop.twin.stage import Staged

START_SECONDS = 120.0
#: Said of a node that took too much memory; how much that was is known at the end.
OVER_MEMORY = "memory"


def wait_until_served(stage: Staged, node: Confined, service: str) -> str | None:
    """Until the release serves; else why it does not."""
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until:
        port = stage.port()
        if port is not None:
            with closing(Sender(port, service)) as sender:
                if sender.is_ready():
                    return None
        if (refusal := stage.refusal()) is not None:
            return f"the node refused the release: {refusal}"
        if node.code is not None:
            return died_of(stage, node)
        time.sleep(0.05)
    return f"the release did not serve within {START_SECONDS:g} s ({stage.last_words()})"


def died_of(stage: Staged, node: Confined) -> str | None:
    """Why the node does not run any more; None while it does."""
    if node.over_memory:
        return OVER_MEMORY
    if node.code is None:
        return None
    return f"the node ended with {node.code} ({stage.last_words()})"


def bare_environment() -> dict[str, str]:
    """Nothing that would lead the node out of its world: no address, no credentials."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("EDGELOOP_", "AWS_"))}
    return {**kept, "OPENBLAS_NUM_THREADS": "1"}
