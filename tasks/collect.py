"""Collect: from segments in the object store to accepted samples."""

from __future__ import annotations

from prefect import task
from prefect.artifacts import create_markdown_artifact, create_table_artifact

from edgeloop.bootstrap import open_app
from edgeloop.quality.ingest import Ingested, ingest
from edgeloop.quality.validate import Validated, validate


@task(name="ingest", task_run_name="ingest-{service}", retries=2, retry_delay_seconds=[2, 10], tags=["edgeloop"])
def ingest_segments(service: str) -> Ingested:
    """Merge the waiting segments of ``service`` into its tables."""
    app = open_app()
    return ingest(app.store, app.tables(service), app.service(service))


@task(name="validate", task_run_name="validate-{service}", retries=2, retry_delay_seconds=[2, 10], tags=["edgeloop"])
def validate_samples(service: str, ingested: Ingested) -> Validated:
    """Judge the new samples and publish the verdict as an artifact."""
    app = open_app()
    spec = app.service(service)
    result = validate(app.tables(service), spec, app.suite(spec), app.store)
    if result.checked or ingested.foreign or ingested.rejected:
        publish_validation(ingested, result)
    return result


def publish_validation(ingested: Ingested, result: Validated) -> None:
    """Two artifacts: the expectations as a table, and what was set aside, with the reason, as text."""
    key = f"validation-{result.service}"
    if result.checks:
        create_table_artifact(
            table=[c.model_dump() for c in result.checks],
            key=f"{key}-checks",
            description=f"Great Expectations on {result.checked} new samples of {result.service}",
        )
    create_markdown_artifact(markdown=_summary(ingested, result), key=key, description="Validation verdict")


def _summary(ingested: Ingested, result: Validated) -> str:
    lines = [
        f"## {result.service}: {result.accepted} of {result.checked} new samples accepted",
        "",
        f"{ingested.segments} segments, {ingested.samples} new samples, {ingested.duplicates} known already,"
        f" {ingested.labels} new labels, {ingested.rejected} records set aside.",
    ]
    if result.reasons:
        lines += ["", "| quarantined because | samples |", "|---|---|"]
        lines += [f"| {_cell(reason)} | {count} |" for reason, count in sorted(result.reasons.items())]
    if ingested.foreign:
        lines += ["", "| foreign or corrupt object | reason |", "|---|---|"]
        lines += [f"| `{_cell(key)}` | {_cell(reason)} |" for key, reason in sorted(ingested.foreign.items())]
    return "\n".join(lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
