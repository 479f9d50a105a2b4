"""Watch: what the fleet says of itself, as an artifact, and what a round did, as a record."""

from __future__ import annotations

from prefect import task
from prefect.artifacts import create_table_artifact

from edgeloop.bootstrap import open_app
from edgeloop.fleet.reports import collect_reports, is_online
from edgeloop.samples.records import Report


@task(name="reports", retries=2, retry_delay_seconds=[2, 10], tags=["edgeloop"])
def gather_reports() -> list[Report]:
    """Collect every node's report and publish the fleet as a table."""
    app = open_app()
    with app.broker() as broker:
        reports = collect_reports(broker)
    if reports:
        create_table_artifact(table=[_row(r) for r in reports], key="fleet", description="What each node serves")
    return reports


def _row(report: Report) -> dict[str, object]:
    return {
        "node": report.node,
        "ring": report.ring,
        "service": report.service,
        "online": is_online(report),
        "serving": report.serving,
        "wanted": report.wanted,
        "answered": report.answered,
        "failed": report.failed,
        "captured": report.captured,
        "spooled": report.spool_samples,
        "p99 ms": report.latency_ms_p99,
        "last error": report.last_error,
    }
