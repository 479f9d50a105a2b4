"""The records that cross a hand-over, so that every room means the same thing by a sample, a label and a report.

Unknown fields are kept, missing ones refused, and each record carries the version of its schema.
"""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

SCHEMA_VERSION = 1

LabelSource = Literal["human", "device", "pseudo"]
#: The strongest source wins; among equals the newest label does.
LABEL_STRENGTH: dict[str, int] = {"pseudo": 0, "device": 1, "human": 2}


def digest(data: bytes) -> str:
    """Return ``sha256:<hex>`` of ``data``: the name of every immutable thing here."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def hexdigest(name: str) -> str:
    """Return the hexadecimal part of a ``sha256:<hex>`` name."""
    return name.removeprefix("sha256:")


def canonical(value: Any) -> bytes:
    """Encode JSON one way only (sorted keys, no spaces, no NaN), so that equal values have equal digests."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def now() -> datetime:
    """The present in UTC, to the microsecond."""
    return datetime.now(UTC)


class Record(BaseModel):
    """A versioned record that keeps fields it does not know."""

    model_config = ConfigDict(extra="allow", frozen=True, protected_namespaces=())

    schema_version: int = SCHEMA_VERSION


class Sample(Record):
    """One input at the edge, what the model said of it, and why it was sent."""

    sample_id: str
    service: str
    device: str
    node: str
    captured_at: datetime
    payload: bytes
    """The input as it arrived: JPEG/PNG bytes, or a feature row as canonical JSON."""
    embedding: bytes | None = None
    """float16 little-endian features of the backbone ``backbone_digest``."""
    backbone_digest: str | None = None
    model_digest: str
    """Digest of the release that answered, or ``none``."""
    prediction: str
    """Label, or the decimal number of a regressor."""
    confidence: float | None = None
    selected_by: str
    selection_probability: float = Field(gt=0, le=1)
    group: str
    """Session or near-duplicate cluster; all of a group is on one side of every split."""


class Label(Record):
    """What someone says the right answer to a sample is. Labels never overwrite."""

    sample_id: str
    service: str
    label: str
    source: LabelSource
    by: str
    at: datetime


class Report(Record):
    """What a node says of itself for one service."""

    node: str
    ring: int
    service: str
    at: datetime
    wanted: str | None = None
    """Digest of the release that the channel names for this node's ring."""
    serving: str | None = None
    previous: str | None = None
    """The last good release, kept to fall back to."""
    online: bool = True
    answered: int = 0
    failed: int = 0
    captured: int = 0
    spool_samples: int = 0
    spool_bytes: int = 0
    latency_ms_p50: float | None = None
    """Of the last 2048 answers since the serving release was loaded."""
    latency_ms_p99: float | None = None
    confidence_histogram: list[int] = Field(default_factory=list)
    """Counts in ten equal bins of [0, 1] since the serving release was loaded."""
    not_captured: int = 0
    """Chosen samples that the spool did not take: full, or its disk failed."""
    dropped: int = 0
    """Captured samples that a full spool dropped for more valuable ones."""
    passed: dict[str, int] = Field(default_factory=dict)
    """Answered inputs that were not chosen, by the reason."""
    audit: dict[str, int] = Field(default_factory=dict)
    """Audited answers that a device labelled (``labelled``), how many of them agreed (``agreed``), and audit draws
    that the byte budget had no room for (``starved``)."""
    accepting: bool = True
    """Whether the spool takes captures now."""
    disk_free_bytes: int | None = None
    """Free on the disk of the node's state."""
    memory_bytes: int | None = None
    """Resident memory of the node."""
    clock_jumps: int = 0
    """How often the node's wall clock jumped since it started."""
    refused: str | None = None
    """Digest of a wanted release that this node tried and gave up, if any."""
    staged: str | None = None
    """Digest of the release that is fetched, verified and waiting for this node's batch."""
    release_answered: int = 0
    """Inputs answered since the serving release was loaded,"""
    release_failed: int = 0
    """and inputs that got an error since then."""
    profile: str | None = None
    """Hardware profile of the node, which decides the variant of a release that it loads."""
    last_error: str | None = None


def sample_id(service: str, device: str, captured_at: datetime, payload: bytes) -> str:
    """Name a sample by service, device, capture time and payload: the same capture always has the same name."""
    return sample_name(service, device, captured_at, digest(payload))


def sample_name(service: str, device: str, captured_at: datetime, payload_digest: str) -> str:
    """:func:`sample_id` for whoever has the payload's digest already, or has nothing else."""
    at = int(captured_at.timestamp() * 1_000_000)
    head = f"{service}\n{device}\n{at}\n{payload_digest}".encode()
    return hashlib.sha256(head).hexdigest()


class Verdict(Record):
    """What validation said of one sample; training reads only accepted ones."""

    sample_id: str
    accepted: bool
    reason: str | None = None
    at: datetime


class Quarantined(Record):
    """A record that was set aside, whole, with the reason."""

    record_id: str
    """The sample's id, or a digest of the record where it has none."""
    reason: str
    check: str
    """The expectation or schema rule that failed."""
    origin: str
    """Object key of the segment it came in, or ``samples``."""
    at: datetime
    record: str
    """The record as JSON, payloads as their digests and sizes."""


class Hold(Record):
    """A label that is not learned from, because a candidate trained on its batch did harm."""

    sample_id: str
    label: str
    source: str
    at: datetime
    reason: str
