"""The parameters that flows take, with the words and bounds that the form in the Prefect UI shows."""

from __future__ import annotations

from typing import Annotated, Literal

from prefect.runtime import flow_run
from pydantic import Field

EveryService = Annotated[str | None, Field(title="Service", description="Name of one service; empty for all of them.")]
OneService = Annotated[
    str,
    Field(
        title="Service",
        description="Name of the service to retrain, as in deployments/services/.",
        pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$",
    ),
]
TrainingMode = Annotated[
    Literal["auto", "head", "full", "sklearn"],
    Field(
        title="Mode",
        description="auto: what the service needs. head: refit the head on frozen features, seconds. "
        "full: fine-tune the whole backbone, minutes to hours. sklearn: refit the pipeline.",
    ),
]
Reason = Annotated[
    str,
    Field(
        title="Reason",
        description="Why this runs, in a few words; it is kept with the model version.",
        min_length=3,
        max_length=200,
    ),
]
Seed = Annotated[
    int | None,
    Field(title="Seed", description="Makes training repeatable; empty takes the service's own.", ge=0, le=2**31 - 1),
]
RolloutTimeout = Annotated[
    int,
    Field(
        title="Rollout timeout",
        description="Seconds to wait for the rollout before leaving it to the scheduled ticks.",
        ge=5,
        le=3600,
    ),
]


def run_name() -> str:
    """Name of a run: the flow, the service or ``all``, and the reason where one is given."""
    given = flow_run.parameters
    name = f"{flow_run.flow_name}-{given.get('service') or 'all'}"
    return f"{name}: {given['reason']}" if given.get("reason") else name
