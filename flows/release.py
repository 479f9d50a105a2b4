"""Release: the reconciler. Whatever the alias ``champion`` names, set by the gate or by hand, becomes a release."""

from __future__ import annotations

from prefect import flow, get_run_logger

from edgeloop.bootstrap import open_app
from edgeloop.errors import EdgeloopError
from flows.parameters import EveryService, run_name
from tasks.deploy import finish_rollout
from tasks.release import Released, release_service

#: How long the reconciler stays with a rollout that it began; after that the scheduled ticks go on with it.
ROLLOUT_SECONDS = 120.0


@flow(name="release", flow_run_name=run_name)
async def release(service: EveryService = None) -> list[Released]:
    """Package every champion that is not a release yet and roll it out; stop what is champion no more.

    Args:
        service: Name of one service; empty for all of them.
    """
    made, failed = release_all([service] if service else open_app().services())
    for one in made:
        if one.started and finish_rollout(one.service, ROLLOUT_SECONDS).state == "reverted":
            release_service(one.service)  # the alias leaves what the fleet refused
    if failed:
        raise failed[0]
    return made


def release_all(services: list[str]) -> tuple[list[Released], list[EdgeloopError]]:
    """Reconcile each service; one that cannot be released does not keep the others waiting."""
    made: list[Released] = []
    failed: list[EdgeloopError] = []
    for name in services:
        try:
            found = release_service(name)
        except EdgeloopError as error:
            get_run_logger().error("%s: %s", name, error)
            failed.append(error)
            continue
        if found is not None:
            made.append(found)
    return made, failed
