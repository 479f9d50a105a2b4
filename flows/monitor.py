"""Monitor: gather what the nodes report, publish the fleet as an artifact, and look whether inputs have drifted."""

from __future__ import annotations

from prefect import flow, get_run_logger

from edgeloop.bootstrap import open_app
from edgeloop.errors import EdgeloopError
from edgeloop.fleet.reports import is_online
from tasks.watch import gather_reports, watch_drift


@flow(name="monitor")
async def monitor() -> dict[str, int]:
    """Count the nodes that are online, behind their ring's release, or in trouble, and the services that drifted."""
    reports = gather_reports()
    counts = {
        "nodes": len({r.node for r in reports}),
        "offline": sum(not is_online(r) for r in reports),
        "behind": sum(r.wanted != r.serving for r in reports),
        "refused": sum(r.refused is not None for r in reports),
        "drifted": look_at_all(open_app().services()),
    }
    get_run_logger().info("fleet: %s", counts)
    return counts


def look_at_all(services: list[str]) -> int:
    """Look at every service, whatever becomes of another; return how many have drifted.

    Raises:
        EdgeloopError: the first one that a look ended with, after all looks.
    """
    drifted, failures = 0, list[EdgeloopError]()
    for name in services:
        try:
            state = watch_drift(name).state
        except EdgeloopError as error:
            get_run_logger().error("drift of %s: %s", name, error)
            failures.append(error)
            continue
        drifted += bool(state and state.findings)
    if failures:
        raise failures[0]
    return drifted
