"""What is known of a promotion: the way of one version from the alias ``champion`` to the fleet."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

State = Literal[
    "building",
    "rehearsing",
    "waiting",
    "signing",
    "released",
    "rejected",
    "withdrawn",
    "superseded",
    "reverted",
    "failed",
]
#: States of what the alias names no more, or must not.
CLOSED: frozenset[State] = frozenset({"rejected", "withdrawn", "superseded", "reverted", "failed"})
#: Somebody or something said no: the alias is moved back, and the version does not begin again while it stays.
REFUSED: frozenset[State] = frozenset({"rejected", "reverted", "failed"})
#: What a rollout's row says while it is on its way.
UNDER_WAY = frozenset({"moving", "queued", "holding", "reverting"})
Outcome = Literal["pass", "fail", "inconclusive"]


def is_among(who: str, people: Iterable[str]) -> bool:
    """Whether ``who`` is one of ``people``: capitals, spaces and other forms of a letter make nobody else."""
    return _person(who) in map(_person, people)


def _person(name: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", name).casefold().split())


@dataclass(frozen=True)
class Approval:
    """What one person said of a promotion."""

    who: str
    verdict: Literal["approve", "reject"]
    reason: str
    at: datetime


@dataclass(frozen=True)
class Promotion:
    """One row: a version that the alias named, and how far it came."""

    id: int
    service: str
    version: str
    former: str | None
    """The version that the alias goes back to if this one is refused."""
    release: str | None
    state: State
    reason: str
    who: str
    """``gate``, ``alias`` (MLflow does not say who set it), or who went back to this version."""
    at: datetime
    changed_at: datetime
    rollout: int | None
    """Number of the service's newest rollout when this version's was begun, or when none was needed."""
    closed_by: str | None
    left_at: datetime | None
    """When the alias was first seen elsewhere after this was closed, or moved there."""

    @property
    def is_open(self) -> bool:
        """Whether it is what the alias names."""
        return self.state not in CLOSED


@dataclass(frozen=True)
class Rollout:
    """What a decision needs of the service's newest rollout."""

    number: int
    release: str
    former: str | None
    """Release that it goes back to."""
    former_version: str | None
    state: str
    reason: str
    version: str | None = None
    """Version of ``release``; None when nobody registered it."""

    @property
    def under_way(self) -> bool:
        """Whether rings may still move."""
        return self.state in UNDER_WAY

    @property
    def everywhere(self) -> str | None:
        """The release that all rings run; None while they differ."""
        return {"done": self.release, "reverted": self.former}.get(self.state)


@dataclass(frozen=True)
class Facts:
    """What was found out for a decision."""

    release: str | None = None
    """Digest of the open promotion's release; None while it is not built."""
    rehearsed: Outcome | None = None
    """What the digital twin said of it; None before it ran."""
    approvals: tuple[Approval, ...] = ()
    proven: bool = False
    """This version was on the fleet before and nobody took it back."""
    rollout: Rollout | None = None
    own: bool = True
    """The newest rollout came of a promotion; else a person began it, and it is theirs to stop."""
    forbidden: str = ""
    """Who withdrew the release from the channel, and why; it does not come back by itself."""
    stray: bool = False
    """The rollout under way is of a version that was refused before it was written down that it had begun."""
