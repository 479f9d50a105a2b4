"""What a node remembers of its releases over a restart: one small JSON file, replaced whole."""

from __future__ import annotations

import errno
import json
import logging
import os
import secrets
import threading
from contextlib import suppress
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edgeloop.edge.files import write_durably
from edgeloop.edge.logs import kind_of
from edgeloop.errors import BadInput

_log = logging.getLogger(__name__)


class StateInUse(BadInput):
    """Another node process uses the same state directory."""


class Refused(BaseModel):
    """A release that this node tried and gave up."""

    release: str
    sequence: int
    error: str
    until: float | None = None
    """Seconds since 1970 after which it is tried again; None: not before the channel changes."""


class ServiceState(BaseModel):
    """One service's releases."""

    model_config = ConfigDict(extra="ignore")

    serving: str | None = None
    previous: str | None = None
    wanted: str | None = None
    sequence: int = -1
    """Of the channel record seen last; the channel itself sees to it that it does not go back."""
    refused: Refused | None = None
    trying: str | None = None
    """The release that is being loaded or on trial: if the process dies of it, the next one knows."""
    tries: int = 0
    """How often in a row a process began to load it and did not live to see it proven."""
    proven: bool = False
    """Whether ``trying`` was proven before, and is only loaded again at a start."""

    def booted(self, name: str) -> ServiceState:
        """After ``name`` was loaded from the disk, which ends a refusal of it."""
        refused = self.refused if self.refused and self.refused.release != name else None
        return self.model_copy(update={"serving": self.serving or name, "refused": refused})


class State(BaseModel):
    """state.json."""

    model_config = ConfigDict(extra="ignore")

    version: int = 1
    salt: str = Field(default_factory=lambda: secrets.token_hex(32))
    """Secret of this node from which the audit share is drawn."""
    services: dict[str, ServiceState] = Field(default_factory=dict)

    def in_use(self) -> set[str]:
        """Digests of the releases to keep on the disk."""
        keep = set[str]()
        for known in self.services.values():
            refused = known.refused.release if known.refused else None
            keep |= {name for name in (known.serving, known.previous, known.trying) if name}
            if known.wanted and known.wanted != refused:  # it may be on its way
                keep.add(known.wanted)
        return keep


class StateFile:
    """The file and what it says. A disk that takes nothing is no reason to stop: then it is kept in memory only."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "state.json"
        self._lock = threading.Lock()
        self._unwritten = False
        self.state = self._load()
        if not self._path.exists():
            self._try_to_write()

    def _load(self) -> State:
        try:
            return State.model_validate(json.loads(self._path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return State()
        except (OSError, ValueError, ValidationError) as error:
            aside = self._path.with_name(f"{self._path.name}.unreadable")
            _log.error("state.json begins anew", extra={"error": kind_of(error), "kept": str(aside)})
            with suppress(OSError):
                self._path.replace(aside)
            return State()

    def _try_to_write(self) -> None:
        try:
            write_durably(self._path, self.state.model_dump_json(indent=1).encode())
        except OSError as error:  # a full disk must not stop a switch or a fall-back
            _log.error("state.json was not written", extra={"error": str(error)})
            self._unwritten = True
        else:
            self._unwritten = False

    def service(self, name: str) -> ServiceState:
        """What is remembered of ``name``."""
        return self.state.services.get(name) or ServiceState()

    def update(self, name: str, value: ServiceState) -> None:
        """Remember ``value``, also over a restart; while the disk takes nothing, in memory only."""
        with self._lock:
            if self.state.services.get(name) == value and not self._unwritten:
                return
            self.state.services[name] = value
            self._try_to_write()


class StateLock:
    """Held while a node runs, so that no second one writes to its state."""

    def __init__(self, folder: Path) -> None:
        import fcntl

        self._file = _open_to_lock(folder)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(self._file)
            raise StateInUse(f"state directory {folder} is used by another node: stop it or name another") from error

    def release(self) -> None:
        """Let go."""
        os.close(self._file)


def _open_to_lock(folder: Path) -> int:
    """A file in ``folder`` that can be locked; on a disk that takes nothing, the folder itself."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        if error.errno not in {errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOSPC, errno.EDQUOT}:
            raise
        _log.error("the state directory cannot be written", extra={"error": str(error)})
        return os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
