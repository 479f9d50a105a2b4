"""Release: whatever version the alias ``champion`` names becomes a release named by digest."""

from __future__ import annotations

from prefect import task
from pydantic import BaseModel

from edgeloop.bootstrap import open_app
from edgeloop.fleet.rollout import start
from edgeloop.release.build import release_champion


class Released(BaseModel):
    """The champion of a service as a release."""

    service: str
    version: str
    release: str
    started: bool
    """Whether a rollout of it was begun by this call."""


@task(name="release", task_run_name="release-{service}", retries=2, retry_delay_seconds=[2, 10], tags=["edgeloop"])
def release_service(service: str) -> Released | None:
    """Package the champion if it is not a release yet, and begin its rollout if it was never begun."""
    app = open_app()
    spec = app.service(service)
    released = release_champion(app.store, app.tables(service), app.registry, app.fleet, spec)
    if released is None:
        return None
    version, digest = released
    app.channel.approve(service, digest)
    started = start(app.fleet, app.channel, spec, digest, f"version {version} is champion")
    return Released(service=service, version=version, release=digest, started=started)
