"""Release: the reconciler. Whatever the alias ``champion`` names, set by the gate or by hand, becomes a release."""

from __future__ import annotations

from prefect import flow

from edgeloop.bootstrap import open_app
from flows.parameters import EveryService, run_name
from tasks.deploy import finish_rollout
from tasks.release import Released, release_service

#: How long the reconciler stays with a rollout that it began; after that the scheduled ticks go on with it.
ROLLOUT_SECONDS = 120.0


@flow(name="release", flow_run_name=run_name)
async def release(service: EveryService = None) -> list[Released]:
    """Package every champion that is not a release yet and roll it out.

    Args:
        service: Name of one service; empty for all of them.
    """
    names = [service] if service else open_app().services()
    made = [one for one in map(release_service, names) if one is not None]
    for one in made:
        if one.started:
            finish_rollout(one.service, ROLLOUT_SECONDS)
    return made
