"""Which inputs are worth sending: a uniform audit share, then the unsure ones, each with its probability.

The audit draw is made from the sample's name and a secret of the node. It is uniform and knows nothing of
the confidence, so estimates over audited samples are unbiased, and the same input sent twice is chosen the same way.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal

from edgeloop.samples.service import Selection

SelectedBy = Literal["audit", "confidence"]


@dataclass(frozen=True)
class Choice:
    """Whether a sample is sent, why, and with what probability it would have been."""

    selected_by: SelectedBy | None
    probability: float


def audit_draw(salt: bytes, sample_id: str) -> float:
    """A number in [0, 1), uniform over samples and always the same for one."""
    mark = hashlib.blake2b(sample_id.encode(), key=salt[:64], digest_size=8).digest()
    return (int.from_bytes(mark, "big") >> 11) / (1 << 53)


def select(confidence: float | None, policy: Selection, draw: float) -> Choice:
    """Choose by ``policy``; ``draw`` in [0, 1) decides the audit share and nothing else.

    The probability is 1 where the confidence alone would send the sample, else the audit share.
    """
    unsure = confidence is not None and policy.confidence_below is not None and confidence < policy.confidence_below
    probability = 1.0 if unsure else policy.audit
    if draw < policy.audit:
        return Choice("audit", probability)
    return Choice("confidence" if unsure else None, probability)
