"""How a service's releases move through the rings: batches, soak, windows, approvals, and what a ring must show.

Part of the service YAML (``rollout:``), so that a release goes out tonight as it went out last month.
"""

from __future__ import annotations

import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
#: A batch: a count of nodes (whole number, 1 or more), or a share of the ring (above 0, at most 1.0).
Batch = Annotated[int, Field(ge=1, strict=True)] | Annotated[float, Field(gt=0, le=1, strict=True)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class Window(_Strict):
    """When batches may begin: from a time of day to another, in a time zone."""

    days: list[Day] = Field(default_factory=list)
    """Days on which it opens; empty for every day."""
    date: datetime.date | None = None
    """One day only, instead of ``days``."""
    begin: datetime.time = Field(alias="from")
    end: datetime.time = Field(alias="to")
    """At or before ``from``: of the day after."""
    zone: str
    """Name in the IANA time zone database, as ``Europe/Berlin``."""


class Step(_Strict):
    """What one ring does differently."""

    batches: list[Batch] | None = None
    soak_seconds: float | None = Field(default=None, ge=0)
    approve: bool = False
    """Whether it waits for a word before it switches."""
    windows: list[Window] | None = None


class Thresholds(_Strict):
    """What a ring's nodes must show. A figure that is None is not asked for."""

    max_failed: float = Field(default=0.05, ge=0, lt=1)
    """Share of a ring's nodes that may refuse or lose the release; any failure fails a ring of under 20 nodes."""
    quorum: float = Field(default=0.9, gt=0, le=1)
    """Share of the online nodes that must have decided before a ring is judged."""
    max_error_rate: float | None = Field(default=0.05, ge=0, le=1)
    """Share of requests that may fail, above what the former release failed."""
    max_latency_ratio: float | None = Field(default=None, gt=1)
    """Most times its own p99 under the former release that a node may take."""
    max_confidence_shift: float | None = Field(default=None, gt=0, le=1)
    """Total variation between the confidence histograms of the release and its former."""
    max_accuracy_drop: float | None = Field(default=0.1, ge=0, le=1)
    """By how much audited accuracy may be below the former release's."""
    require_accuracy: bool = False
    """Whether a ring without enough audited answers holds; else it goes on without them."""
    min_answers: int = Field(default=30, ge=1)
    """Answers under the release below which its rates say nothing."""


class Strategy(_Strict):
    """The section ``rollout`` of a service YAML."""

    batches: list[Batch] = Field(default_factory=lambda: [1.0], min_length=1)
    """In turn within a ring; what is left over is a last one."""
    soak_seconds: float = Field(default=300.0, ge=0)
    """Least time between a ring's last switch and its verdict: what is wrong only on live traffic shows in it."""
    patience_seconds: float = Field(default=600.0, gt=0)
    """How long a ring may stay inconclusive before the rollout holds for a person."""
    absence_seconds: float = Field(default=20.0, ge=0)
    """With no node of a ring online for this long it is skipped, and caught up when they return; never the first."""
    per_hour: int | None = Field(default=None, ge=1)
    """Most nodes of the service that are told to switch in an hour, by one release or several; going back does not
    count, nor does a ring's first release."""
    windows: list[Window] = Field(default_factory=list)
    """Batches begin only within one of them; empty for always."""
    moves: Literal["keep", "follow"] = "keep"
    """A node that a person moves to a ring still on the former release keeps what it runs, in its old ring, until its
    new one has it; or it follows its new ring back."""
    target: Literal["agent", "kubeedge", "kserve"] = "agent"
    thresholds: Thresholds = Thresholds()
    rings: dict[Annotated[int, Field(ge=0)], Step] = Field(default_factory=dict)
    """What single rings do differently."""
