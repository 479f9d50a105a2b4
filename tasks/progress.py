"""How far a long task is: every line to the run's log, and one progress artifact that follows those that count."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import Protocol, Self
from uuid import UUID

from prefect.artifacts import create_progress_artifact
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import ArtifactUpdate

from edgeloop.learning.progress import Counted

#: Seconds between two updates of the artifact; each is a request to the server.
PACE = 2.0


def update(artifact: UUID, percent: float, text: str) -> None:
    """Change a progress artifact. Prefect's own ``update_progress_artifact`` leaves a connection open each time."""
    with get_client(sync_client=True) as client:
        client.update_artifact(artifact, ArtifactUpdate(data=percent, description=text))


class Log(Protocol):
    """The part of a logger that is needed here."""

    def info(self, msg: str, *args: object) -> None: ...
    def warning(self, msg: str, *args: object) -> None: ...


class Training:
    """Progress of one training: call it with each line. The artifact shows the stage under way and its share done.

    A server that does not answer costs the artifact, never the training.
    """

    def __init__(self, service: str, log: Log, clock: Callable[[], float] = time.monotonic) -> None:
        self._service, self._log, self._clock = service, log, clock
        self._artifact: UUID | None = None
        self._next = 0.0
        self._percent = 0.0

    def __enter__(self) -> Self:
        self._try(self._create)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self._percent = 100.0
        self._update("done" if error is None else f"stopped: {type(error).__name__}")

    def __call__(self, line: str) -> None:
        """Log ``line``; show it if it counts and the last one was not just shown, or if it ends its stage."""
        self._log.info("%s", line)
        if isinstance(line, Counted) and (line.done >= line.of or self._clock() >= self._next):
            self._next = self._clock() + PACE
            self._percent = 100.0 * min(1.0, line.done / max(1, line.of))
            self._update(line)

    def _create(self) -> None:
        made = create_progress_artifact(0.0, key=f"training-{self._service}", description="started")
        assert isinstance(made, UUID)  # a coroutine only where an event loop waits, which tasks are not
        self._artifact = made

    def _update(self, text: str) -> None:
        made = self._artifact
        if made is not None:
            self._try(lambda: update(made, self._percent, str(text)))

    def _try(self, call: Callable[[], object]) -> None:
        try:
            call()
        except Exception as error:  # whatever the client lets through, it is no reason to lose hours of training
            self._artifact = None
            self._log.warning("progress is not shown any more (%s): see this log", type(error).__name__)
