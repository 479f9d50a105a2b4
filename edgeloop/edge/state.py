"""What a node remembers of its releases over a restart: one small JSON file, replaced whole."""

from __future__ import annotations

import json
import logging
import os
import secrets
import threading
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edgeloop.edge.files import write_durably
from edgeloop.errors import BadInput

_log = logging.getLogger(__name__)


class UnreadableState(BadInput):
    """state.json was not written by this edgeloop."""


class StateInUse(BadInput):
    """Another node process uses the same state directory."""


class Refused(BaseModel):
    """A release that this node tried and gave up."""

    release: str
    sequence: int
    error: str


class ServiceState(BaseModel):
    """One service's releases."""

    model_config = ConfigDict(extra="ignore")

    serving: str | None = None
    previous: str | None = None
    wanted: str | None = None
    sequence: int = -1
    """Of the newest channel record seen."""
    refused: Refused | None = None


class State(BaseModel):
    """state.json."""

    model_config = ConfigDict(extra="ignore")

    version: int = 1
    salt: str = Field(default_factory=lambda: secrets.token_hex(32))
    """Secret of this node from which the audit share is drawn."""
    services: dict[str, ServiceState] = Field(default_factory=dict)


class StateFile:
    """The file and what it says. Raises UnreadableState, or OSError when it cannot be created."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "state.json"
        self._lock = threading.Lock()
        self._unwritten = False
        self.state = self._load()
        if not self._path.exists():
            self._write()

    def _load(self) -> State:
        try:
            return State.model_validate(json.loads(self._path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return State()
        except (OSError, ValueError, ValidationError) as error:
            raise UnreadableState(
                f"{self._path} cannot be read ({str(error)[:200]}): remove it; the release is fetched again"
            ) from error

    def _write(self) -> None:
        write_durably(self._path, self.state.model_dump_json(indent=1).encode())

    def service(self, name: str) -> ServiceState:
        """What is remembered of ``name``."""
        return self.state.services.get(name) or ServiceState()

    def update(self, name: str, value: ServiceState) -> None:
        """Remember ``value``, also over a restart; while the disk takes nothing, in memory only."""
        with self._lock:
            if self.state.services.get(name) == value and not self._unwritten:
                return
            self.state.services[name] = value
            try:
                self._write()
            except OSError as error:  # a full disk must not stop a switch or a fall-back
                _log.error("state.json was not written", extra={"error": str(error)})
                self._unwritten = True
            else:
                self._unwritten = False


class StateLock:
    """Held while a node runs, so that no second one writes to its state."""

    def __init__(self, folder: Path) -> None:
        import fcntl

        folder.mkdir(parents=True, exist_ok=True)
        self._file = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(self._file)
            raise StateInUse(f"state directory {folder} is used by another node: stop it or name another") from error

    def release(self) -> None:
        """Let go."""
        os.close(self._file)
