"""What a rehearsal found, as one record: named by its digest, it is what an approval can point to."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edgeloop.errors import EdgeloopError
from edgeloop.samples.delivery import TwinRules
from edgeloop.samples.profiles import Profile
from edgeloop.samples.records import canonical, digest

Outcome = Literal["pass", "fail", "inconclusive"]
Source = Literal["captured", "drawn"]


class LostReport(EdgeloopError):
    """The report of a rehearsal is not what was written."""


class _Kept(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True)


class Confinement(_Kept):
    """Within what the node ran."""

    how: Literal["cgroup", "watch"]
    """``cgroup``: the kernel held it; ``watch``: bound to cores, and ended when its resident memory was over."""
    cores: int
    """Cores that it had; fewer than the profile's where this machine has fewer."""
    memory_mb: int
    shared: bool
    """Whether who asked had to run on the same cores: times are then too long rather than too short."""


class Step(_Kept):
    """One rate of the load test."""

    rate: float
    """Requests that were due in a second, on this machine."""
    asked: int
    failed: int
    p99_ms: float
    """From when a request was due to its answer, on this machine; a request that waits for its turn is late too."""
    held: bool
    """Whether the budget held."""


class Load(_Kept):
    """What a rising rate of requests showed; rates are those of the profile's hardware."""

    holds_at: float | None
    """Highest rate in requests/s at which the budget held."""
    breaks_at: float | None
    """Lowest rate at which it broke; None when it never did in the time that there was."""
    limit: Literal["node", "sender", "time"]
    """What ended it: only ``node`` says that the node can take no more."""
    steps: list[Step]


class TwinReport(_Kept):
    """One rehearsal of one release for one profile."""

    version: Literal[1] = 1
    service: str
    model: str
    """Model version."""
    release: str
    profile: Profile
    rules: TwinRules
    machine: str
    at: datetime
    seconds: float
    outcome: Outcome
    reasons: list[str]
    """Why not ``pass``; empty then."""
    notes: list[str] = Field(default_factory=list)
    """What a reader should know of how far to believe the figures."""
    confinement: Confinement | None = None
    """None when no node ran."""
    source: Source | None = None
    """``captured``: newest samples of the service; ``drawn``: made up, because there are none."""
    inputs: int = 0
    errors: int = 0
    """Inputs that got no answer of the model."""
    first_error: str | None = None
    self_check: bool | None = None
    """Whether the node answers the release's own probe as the release says; None when it was not reached."""
    compared: int = 0
    same: int = 0
    """Answers that are those of the trained model."""
    p50_ms: float | None = None
    """Of one answer, one at a time, on this machine."""
    p99_ms: float | None = None
    peak_mb: float | None = None
    """Most memory that the node held."""
    load: Load | None = None

    @property
    def agreement(self) -> float | None:
        """Share of equal answers; None when nothing was compared."""
        return self.same / self.compared if self.compared else None

    @property
    def target_p99_ms(self) -> float | None:
        """99th percentile on the profile's hardware, as far as its ``slowdown`` is right."""
        return None if self.p99_ms is None else self.p99_ms * self.profile.slowdown

    def to_bytes(self) -> bytes:
        """Canonical bytes; their digest is the report's name."""
        return canonical(self.model_dump(mode="json"))


def terms_of(profile: Profile, rules: TwinRules) -> str:
    """Digest of all that a release is judged by: with other budgets, an older rehearsal says nothing."""
    return digest(canonical({"profile": profile.model_dump(mode="json"), "rules": rules.model_dump(mode="json")}))


def parse_report(data: bytes, name: str) -> TwinReport:
    """Read the report with this digest.

    Raises:
        LostReport: these are not its bytes.
    """
    try:
        if digest(data) != name:
            raise ValueError(f"its bytes have digest {digest(data)}")
        return TwinReport.model_validate(json.loads(data))
    except (ValueError, ValidationError) as error:
        raise LostReport(f"twin report {name} cannot be read ({str(error)[:200]}): rehearse with --again") from error
