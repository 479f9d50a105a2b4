"""Deploy: move rings to their release and judge them by their reports."""

from __future__ import annotations

from prefect import get_run_logger, task

from edgeloop.bootstrap import open_app
from edgeloop.fleet.rollout import RolloutStatus, run_to_end, tick


@task(name="tick", retries=2, retry_delay_seconds=[2, 10], tags=["edgeloop"])
def tick_rollouts() -> list[RolloutStatus]:
    """Advance every open rollout by at most one ring."""
    app = open_app()
    with app.broker() as broker:
        return tick(app.fleet, app.channel, broker, app.service)


@task(name="rollout", task_run_name="rollout-{service}", tags=["edgeloop"])
def finish_rollout(service: str, timeout_seconds: float) -> RolloutStatus:
    """Tick until the newest rollout of ``service`` has ended."""
    from edgeloop.fleet.rollout import describe_rollout

    app = open_app()
    log = get_run_logger()
    said: list[str] = []

    def progress(status: RolloutStatus) -> None:
        text = f"ring index {status.wave}: {status.switched} of {status.online} online nodes switched"
        if not said or said[-1] != text:
            said.append(text)
            log.info("%s", text)

    with app.broker() as broker:

        def step() -> RolloutStatus:
            mine = [s for s in tick(app.fleet, app.channel, broker, app.service) if s.service == service]
            return mine[0] if mine else describe_rollout(app.fleet, service)

        return run_to_end(step, timeout_seconds, progress)
