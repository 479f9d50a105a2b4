"""Ingest: merge what the nodes sent and judge it. Runs every few minutes, so that a retrain finds its data ready."""

from __future__ import annotations

from prefect import flow
from pydantic import BaseModel

from edgeloop.bootstrap import open_app
from edgeloop.quality.ingest import Ingested
from edgeloop.quality.validate import Validated
from flows.parameters import EveryService, run_name
from tasks.collect import ingest_segments, validate_samples


class Collected(BaseModel):
    """What was ingested, and what validation said of it."""

    ingested: Ingested
    validated: Validated


@flow(name="ingest", flow_run_name=run_name)
async def ingest(service: EveryService = None) -> list[Collected]:
    """Merge capture and label segments into the samples tables, once each, and validate the new samples.

    Args:
        service: Name of one service; empty for all of them.
    """
    return [collect(name) for name in ([service] if service else open_app().services())]


def collect(service: str) -> Collected:
    """Ingest and validate one service."""
    ingested = ingest_segments(service)
    return Collected(ingested=ingested, validated=validate_samples(service, ingested))
