"""How much an answer has to teach, by each rule of a policy, on one scale.

Rules measure in units of their own. What makes them comparable is how far an answer lies beyond the rule's
own limit: 0 at the limit, 1 at the most extreme answer there can be, and linear between.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from edgeloop.samples.selection import (
    ConfidenceRule,
    CrossEntropyRule,
    EntropyRule,
    IbtRule,
    MarginRule,
    NoveltyRule,
    Rule,
    ThresholdRule,
)

if TYPE_CHECKING:
    from edgeloop.clients.models import Answer

#: Cosine distance to the nearest centre; None where the answer has no embedding.
Novelty = Callable[[], float | None]


def value_of(rule: Rule, answer: Answer, novelty: Novelty) -> float | None:
    """How far ``answer`` lies beyond the limit of ``rule``, in [0, 1]; None where the rule does not hold.

    A rule whose measure the answer lacks (no probabilities, boxes or embedding, or NaN) does not hold.
    """
    found: float | None
    match rule:
        case ThresholdRule():
            found = _below(answer.confidence, rule.below)
        case ConfidenceRule():
            found = _above(answer.confidence, rule.above, 1.0)
        case MarginRule():
            found = _below(margin(answer.probabilities), rule.below)
        case EntropyRule():
            found = _above(entropy(answer.probabilities), rule.above, 1.0)
        case CrossEntropyRule():
            found = _below(_certainty(answer.probabilities), rule.below)
        case IbtRule():
            found = _hard_boxes(answer.boxes, rule)
        case NoveltyRule():
            found = _above(novelty(), rule.above, 1.0 if rule.above < 1 else 2.0)
    return found


def _above(measure: float | None, limit: float, top: float) -> float | None:
    if measure is None or not measure > limit:
        return None
    return min(1.0, (measure - limit) / (top - limit))


def _below(measure: float | None, limit: float) -> float | None:
    if measure is None or not measure < limit:
        return None
    return min(1.0, (limit - measure) / limit)


def margin(probabilities: tuple[float, ...] | None) -> float | None:
    """The best probability less the second best, in [0, 1]; None for fewer than two."""
    if probabilities is None or len(probabilities) < 2:
        return None
    first, second = heapq.nlargest(2, probabilities)
    return first - second


def entropy(probabilities: tuple[float, ...] | None) -> float | None:
    """Shannon's entropy of K probabilities over log K, in [0, 1]; None for fewer than two."""
    if probabilities is None or len(probabilities) < 2:
        return None
    shares = np.asarray(probabilities, dtype=np.float64)
    shares = shares[shares != 0]
    with np.errstate(invalid="ignore"):
        spread = -float(shares @ np.log(shares)) / math.log(len(probabilities))
    return min(1.0, spread) if spread >= 0 else (0.0 if spread < 0 else None)


def _certainty(probabilities: tuple[float, ...] | None) -> float | None:
    """Sedna's score: one less the entropy."""
    spread = entropy(probabilities)
    return None if spread is None else 1.0 - spread


def _hard_boxes(boxes: tuple[float, ...] | None, rule: IbtRule) -> float | None:
    if boxes is None:
        return None
    share = sum(one <= rule.box for one in boxes) / len(boxes) if boxes else 1.0
    least = 1.0 - rule.image
    return (share - least) / rule.image if share >= least else None
