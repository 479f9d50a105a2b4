"""The one worker of a stack: it clears up after its own death before it works.

A worker that was killed leaves runs that claim to be running and hold their concurrency slots; Prefect would notice
minutes later. Whoever starts this promises that no other worker serves the pool. On a cluster, where several do, start
``prefect worker`` itself and leave lost runs to the automation of :mod:`deployments.register`.

``python -m deployments.runner POOL NAME``, with ``PREFECT_API_URL`` set.
"""

from __future__ import annotations

import os
import sys

from edgeloop.clients.orchestrator import PrefectOrchestrator
from edgeloop.errors import EdgeloopError


def main(pool: str, name: str) -> None:
    """End what an earlier life left behind, then become the Prefect worker."""
    try:
        orchestrator = PrefectOrchestrator(os.environ["PREFECT_API_URL"])
        ended = orchestrator.cancel_stale()
        orchestrator.close()
    except EdgeloopError as error:
        sys.exit(f"edgeloop: {error}")
    if ended:
        sys.stderr.write(f"ended {ended} runs that an earlier worker left behind\n")
    worker = ["-m", "prefect", "worker", "start", "--pool", pool, "--type", "process", "--name", name]
    os.execv(sys.executable, [sys.executable, *worker])


if __name__ == "__main__":
    main(*sys.argv[1:3])
