"""What edgeloop asks of Prefect - run, wait, pause, tell - without the second that importing Prefect costs.

:class:`PrefectOrchestrator` speaks its REST API; :class:`FakeOrchestrator` runs plain functions in its place.
"""

from edgeloop.clients.orchestrator_fake import FakeOrchestrator
from edgeloop.clients.orchestrator_prefect import PrefectOrchestrator, schedule_text
from edgeloop.clients.orchestrator_types import (
    DeploymentInfo,
    OnState,
    Orchestrator,
    OrchestratorRefused,
    OrchestratorUnavailable,
    RefusedParameters,
    RunState,
    RunUnfinished,
    TaskState,
    UnknownDeployment,
    UnknownRun,
)

__all__ = [
    "DeploymentInfo",
    "FakeOrchestrator",
    "OnState",
    "Orchestrator",
    "OrchestratorRefused",
    "OrchestratorUnavailable",
    "PrefectOrchestrator",
    "RefusedParameters",
    "RunState",
    "RunUnfinished",
    "TaskState",
    "UnknownDeployment",
    "UnknownRun",
    "schedule_text",
]
