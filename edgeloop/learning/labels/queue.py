"""What to ask a person for, within a budget of answers: a pure function of what waits, of a count and of a seed.

Requests have two purposes. What is asked for *learning* comes from the pool, mostly where a label teaches most, and a
share at random. What is asked for *judging* comes from the gate and test splits and from nothing but audit samples,
always at random: a judge that sees what a model finds hard is no judge of how good the model is.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from edgeloop.learning.labels.picks import typical, uncertain, unlike
from edgeloop.samples.labelling import Shares

if TYPE_CHECKING:
    from numpy.typing import NDArray

Purpose = Literal["learn", "judge"]
#: ``rest``: nothing is known by which to choose it. ``second``: another person has answered it. ``disputed``: its
#: labels, or those of an equal input, contradict each other.
Why = Literal["random", "typical", "uncertain", "diverse", "rest", "second", "disputed"]


class Asked(BaseModel):
    """Why a label was asked for; kept with the label."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    purpose: Purpose
    why: Why
    probability: float | None = Field(default=None, gt=0, le=1)
    """With which it was drawn from all that could be asked for this purpose then; None unless it was random."""


class Request(BaseModel):
    """One sample that one person is asked about."""

    model_config = ConfigDict(frozen=True)

    sample_id: str
    asked: Asked


@dataclass(frozen=True)
class Waiting:
    """What may be asked of one person."""

    learn: Sequence[str] = ()
    """Names of pool samples without a label."""
    judge: Sequence[str] = ()
    """Names of audit samples of the gate and test splits without a label by a person."""
    second: Mapping[str, Purpose] = field(default_factory=dict)
    """Samples that one other person has answered and two are to."""
    disputed: Mapping[str, Purpose] = field(default_factory=dict)
    """Samples whose labels contradict each other; they come before ``second``, and are not in it."""
    vectors: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    """Of some of ``learn``, all in one space: float32 [features]."""
    doubts: Mapping[str, float] = field(default_factory=dict)
    """Of some of ``learn``: the more, the less sure a model is."""
    known: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    """Labelled pool samples in the same space, float32 [m, features]."""
    few: bool = True
    """Whether labels are so few that typical samples teach more than doubtful ones."""


def make_queue(waiting: Waiting, count: int, seed: int, shares: Shares | None = None) -> list[Request]:
    """At most ``count`` requests, no sample twice; the same for the same arguments.

    Parts are interleaved, so that who stops early has answered some of each.
    """
    shares = shares or Shares()
    second, judge, learn = _quotas(waiting, max(count, 0), shares)
    rng = np.random.default_rng(seed)
    parts = [
        _again(rng, waiting, second),
        _at_random(rng, waiting.judge, judge, "judge"),
        *_for_learning(rng, waiting, learn, shares, seed),
    ]
    placed = [((at + 0.5) / len(part), number, one) for number, part in enumerate(parts) for at, one in enumerate(part)]
    return [one for _, _, one in sorted(placed, key=lambda p: p[:2])]


def _quotas(waiting: Waiting, count: int, shares: Shares) -> tuple[int, int, int]:
    """How many to ask: second opinions, for judging, for learning."""
    others = len(waiting.second) + len(waiting.disputed)
    second = min(others, math.ceil(count * shares.second))
    judge = min(len(waiting.judge), math.ceil((count - second) * shares.judge))
    learn = min(len(waiting.learn), count - second - judge)
    judge = min(len(waiting.judge), count - second - learn)
    return min(others, count - judge - learn), judge, learn


def _again(rng: np.random.Generator, waiting: Waiting, count: int) -> list[Request]:
    """What others have answered: where labels contradict each other first."""
    urgent = _draw(rng, sorted(waiting.disputed), min(count, len(waiting.disputed)))
    more = _draw(rng, sorted(waiting.second), count - len(urgent))
    found = [Request(sample_id=n, asked=Asked(purpose=waiting.disputed[n], why="disputed")) for n in urgent]
    return found + [Request(sample_id=n, asked=Asked(purpose=waiting.second[n], why="second")) for n in more]


def _draw(rng: np.random.Generator, names: Sequence[str], count: int) -> list[str]:
    return [names[i] for i in rng.choice(len(names), size=count, replace=False)] if count else []


def _at_random(rng: np.random.Generator, names: Sequence[str], count: int, purpose: Purpose) -> list[Request]:
    """A uniform draw without replacement: each name has the probability count / names."""
    ordered = sorted(names)
    asked = Asked(purpose=purpose, why="random", probability=count / len(ordered)) if count else None
    return [Request(sample_id=n, asked=asked) for n in _draw(rng, ordered, count)] if asked else []


def _for_learning(
    rng: np.random.Generator, waiting: Waiting, count: int, shares: Shares, seed: int
) -> list[list[Request]]:
    """The random share, then picks by what the vectors say; the rest where they say nothing."""
    if not count:
        return []
    informed = min(count - max(1, round(count * shares.random)), sum(n in waiting.vectors for n in waiting.learn))
    chance = _at_random(rng, waiting.learn, count - informed, "learn")
    taken = {one.sample_id for one in chance}
    why, names = _informed(waiting, sorted(set(waiting.learn) - taken), informed, seed)
    picked = [Request(sample_id=n, asked=Asked(purpose="learn", why=why)) for n in names]
    open_still = sorted(set(waiting.learn) - taken - set(names))
    rest = _draw(rng, open_still, min(informed - len(picked), len(open_still)))
    return [chance, picked, [Request(sample_id=n, asked=Asked(purpose="learn", why="rest")) for n in rest]]


def _informed(waiting: Waiting, names: Sequence[str], count: int, seed: int) -> tuple[Why, list[str]]:
    names = [n for n in names if n in waiting.vectors]
    if not names or not count:
        return "typical", []
    points = np.stack([waiting.vectors[n] for n in names])
    known = waiting.known if len(waiting.known) else np.zeros((0, points.shape[1]), np.float32)
    if waiting.few:
        return "typical", [names[i] for i in typical(points, known, count, seed)]
    if not any(n in waiting.doubts for n in names):
        return "diverse", [names[i] for i in unlike(points, known, count)]
    doubts = np.array([waiting.doubts.get(n, 0.0) for n in names])
    return "uncertain", [names[i] for i in uncertain(points, doubts, count, seed)]


def wants_two(sample_id: str, share: float) -> bool:
    """Whether two people are to answer this sample, by a hash of its name: for ever, and whoever asks."""
    part = int.from_bytes(hashlib.sha256(f"two\n{sample_id}".encode()).digest()[:8], "big")
    return part < share * 2**64
