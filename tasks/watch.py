"""Watch: what the fleet says of itself, and whether what it sees has changed, as artifacts."""

from __future__ import annotations

from prefect import get_run_logger, task
from prefect.artifacts import create_markdown_artifact, create_table_artifact

from edgeloop.bootstrap import open_app
from edgeloop.fleet.reports import collect_reports, is_online
from edgeloop.learning.drift.acting import act
from edgeloop.learning.drift.looking import Looked, look
from edgeloop.learning.drift.telling import markdown
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


@task(name="drift", task_run_name="drift-{service}", retries=2, retry_delay_seconds=[2, 10], tags=["edgeloop"])
def watch_drift(service: str) -> Looked:
    """Test what came since the last look, and ask for a retrain because of a finding; nothing is promoted by one."""
    app = open_app()
    log = get_run_logger()
    looked = look(app.store, app.tables(service), app.registry, app.fleet, app.service(service))
    if looked.state is None:
        return looked
    for finding in looked.found:
        log.warning("%s: %s", service, finding.reason)
    for run in act(app.fleet, app.orchestrator, looked.state):
        log.info("asked for a retrain of %s: run %s", service, run)
    if looked.skip is None:
        create_markdown_artifact(markdown=markdown(looked.state), key=f"drift-{service}", description="Drift watch")
    return looked


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
