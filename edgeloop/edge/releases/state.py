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
from edgeloop.edge.releases.wishes import Wishes
from edgeloop.errors import BadInput
from edgeloop.samples.releases import wish_at

_log = logging.getLogger(__name__)


class StateInUse(BadInput):
    """Another node process uses the same state directory."""


class Refused(BaseModel):
    """A release that this node tried and gave up."""

    release: str
    sequence: int
    error: str
    until: float | None = None
    """Seconds since 1970 after which it is tried again; None: not before another wish for it."""
    wish: str | None = None
    """Name of the wish that it was tried for; None from before wishes had names, see ``Wanted.wish_for_release``."""

    @property
    def name(self) -> str:
        """Name of the wish."""
        return wish_at(self.sequence) if self.wish is None else self.wish

    def holds(self, names: dict[str, str]) -> bool:
        """Whether no other wish wants the release, by the names of wishes for releases."""
        return names.get(self.release, self.name) == self.name


class ServiceState(BaseModel):
    """One service's releases."""

    model_config = ConfigDict(extra="ignore")

    serving: str | None = None
    previous: str | None = None
    wanted: str | None = None
    """What this node is to run,"""
    next: str | None = None
    """and what it is to have ready."""
    sequence: int = -1
    """Of the channel record seen last; the channel itself sees to it that it does not go back."""
    wishes: dict[str, str] = Field(default_factory=dict)
    """Name of the wish for each release of that record."""
    refused: Refused | None = None
    declined: Refused | None = None
    """As ``refused``, of the release that was to be had ready: a fault of one must not hide the other's."""
    trying: str | None = None
    """The release that is being loaded or on trial: if the process dies of it, the next one knows."""
    tries: int = 0
    """How often in a row a process began to load it and did not live to see it proven."""
    proven: bool = False
    """Whether ``trying`` was proven before, and is only loaded again at a start."""

    @property
    def good(self) -> list[str]:
        """Releases to load at a start, the first one first."""
        return [name for name in (self.serving, self.previous) if name]

    @property
    def bad(self) -> set[str]:
        """Releases that were given up."""
        return {refused.release for refused in (self.refused, self.declined) if refused}

    @property
    def given_up(self) -> Refused | None:
        """What was refused last, of what the channel wants."""
        return self.declined or self.refused

    def told(self, sequence: int, wishes: Wishes) -> ServiceState:
        """After a record with these wishes was seen. What was given up and is wanted anew is given up no more."""
        names = wishes.names()
        refused = self.refused if self.refused and self.refused.holds(names) else None
        declined = self.declined if self.declined and self.declined.holds(names) else None
        if declined and declined.release not in names:
            declined = None
        later = wishes.later.release if wishes.later else None
        change = {"wanted": wishes.now.release, "next": later, "sequence": sequence, "wishes": names}
        return self.model_copy(update=change | {"refused": refused, "declined": declined})

    def switched(self, name: str, previous: str | None) -> ServiceState:
        """After ``name`` came into service."""
        declined = self.declined if self.declined and self.declined.release != name else None
        change = {"serving": name, "previous": previous, "refused": None, "declined": declined}
        return self.model_copy(update=change)

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
    moved_to: int | None = None
    """Ring that the channel named last; None for the one of node.yaml."""
    services: dict[str, ServiceState] = Field(default_factory=dict)

    def in_use(self) -> set[str]:
        """Digests of the releases to keep on the disk."""
        keep = set[str]()
        for known in self.services.values():
            keep |= {name for name in (known.serving, known.previous, known.trying) if name}
            keep |= {name for name in (known.wanted, known.next) if name and name not in known.bad}  # on their way
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

    def move(self, ring: int | None) -> None:
        """Remember the ring that the channel names, as :meth:`update` does."""
        with self._lock:
            self.state.moved_to = ring
            self._try_to_write()

    def change(self, name: str, **fields: object) -> None:
        """:meth:`update` these fields and leave the others."""
        self.update(name, self.service(name).model_copy(update=fields))


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
