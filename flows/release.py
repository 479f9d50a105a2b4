"""Release: the reconciler. Whatever the alias ``champion`` names, set by the gate or by hand, becomes a release."""

from __future__ import annotations

from prefect import flow

from edgeloop.bootstrap import open_app
from flows.parameters import EveryService
from tasks.release import Released, release_service


@flow(name="release", flow_run_name="release-{service}")
async def release(service: EveryService = None) -> list[Released]:
    """Package every champion that is not a release yet and begin its rollout.

    Args:
        service: Name of one service; empty for all of them.
    """
    names = [service] if service else open_app().services()
    made = [release_service(name) for name in names]
    return [one for one in made if one is not None]
