"""Deploy: move rings to their release and judge them by what their nodes say."""

from __future__ import annotations

from collections.abc import Sequence

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE

from edgeloop.bootstrap import App, open_app
from edgeloop.clients.broker import Broker
from edgeloop.fleet.rollout import RolloutStatus, run_to_end, tick
from edgeloop.fleet.rollouts.effects import Action
from edgeloop.fleet.targets.protocol import Outcome

#: Seconds between two looks at clusters; nodes that follow the channel report by themselves.
CLUSTER_PAUSE = 5.0


@task(
    name="ring",
    task_run_name="{action.name}",
    retries=2,
    retry_delay_seconds=[2, 10],
    cache_policy=NO_CACHE,
    tags=["edgeloop"],
)
def act_on_ring(action: Action) -> Outcome:
    """Make one ring at one site be like it should."""
    return action.call()


def fan_out(actions: Sequence[Action]) -> list[Outcome]:
    """All rings and sites at once, one task for each; never one for a node."""
    futures = [act_on_ring.submit(action) for action in actions]
    return [future.result() for future in futures]


def tick_once(app: App, broker: Broker) -> list[RolloutStatus]:
    """One tick; rings of clusters are tasks of their own, rings that follow the channel are one commit."""
    return tick(app.fleet, app.channel, broker, app.service, targets=app.targets, images=app.images, perform=fan_out)


@task(name="tick", retries=2, retry_delay_seconds=[2, 10], tags=["edgeloop"])
def tick_rollouts() -> list[RolloutStatus]:
    """Advance every open rollout."""
    app = open_app()
    with app.broker() as broker:
        return tick_once(app, broker)


@task(name="rollout", task_run_name="rollout-{service}", tags=["edgeloop"])
def finish_rollout(service: str, timeout_seconds: float) -> RolloutStatus:
    """Tick until the newest rollout of ``service`` has ended, or waits for a person or for a later time."""
    from edgeloop.fleet.rollout import describe_rollout

    app = open_app()
    log = get_run_logger()
    said: list[str] = []

    def progress(status: RolloutStatus) -> None:
        text = f"ring index {status.wave}: {status.switched} of {status.online} online nodes switched: {status.reason}"
        if not said or said[-1] != text:
            said.append(text)
            log.info("%s", text)

    with app.broker() as broker:

        def step() -> RolloutStatus:
            mine = [s for s in tick_once(app, broker) if s.service == service]
            return mine[-1] if mine else describe_rollout(app.fleet, service)

        pause = 0.05 if app.service(service).rollout.target == "agent" else CLUSTER_PAUSE
        return run_to_end(step, timeout_seconds, progress, pause)
