"""Monitor: gather what the nodes report and publish the fleet as an artifact."""

from __future__ import annotations

from prefect import flow, get_run_logger

from edgeloop.fleet.reports import is_online
from tasks.watch import gather_reports


@flow(name="monitor")
async def monitor() -> dict[str, int]:
    """Count the nodes that are online, behind their ring's release, or in trouble."""
    reports = gather_reports()
    counts = {
        "nodes": len({r.node for r in reports}),
        "offline": sum(not is_online(r) for r in reports),
        "behind": sum(r.wanted != r.serving for r in reports),
        "refused": sum(r.refused is not None for r in reports),
    }
    get_run_logger().info("fleet: %s", counts)
    return counts
