"""Release: whatever version the alias ``champion`` names becomes a release named by digest, and then a rollout."""

from __future__ import annotations

from prefect import task
from pydantic import BaseModel

from edgeloop.bootstrap import open_app
from edgeloop.promotion.reconcile import reconcile
from edgeloop.promotion.records import CLOSED


class Released(BaseModel):
    """The champion of a service as a release."""

    service: str
    version: str
    release: str | None
    """None while it is not built."""
    state: str
    """``released`` when a rollout of it was begun, by this call or an earlier one."""
    reason: str = ""
    started: bool
    """Whether a rollout of it was begun by this call."""


@task(name="release", task_run_name="release-{service}", retries=2, retry_delay_seconds=[2, 10], tags=["edgeloop"])
def release_service(service: str) -> Released | None:
    """Do all that can be done now between the alias and the rollout; None without a champion."""
    app = open_app()
    found = reconcile(app.promotion, app.service(service))
    if found.version is None or found.state is None or found.state in CLOSED:
        return None
    return Released(
        service=service,
        version=found.version,
        release=found.release,
        state=found.state,
        reason=found.reason,
        started=found.started,
    )
