"""How far people's labels can be believed: where two answered the same sample, how often they said the same."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import combinations

from pydantic import BaseModel

from edgeloop.samples.records import Label

#: Half-width of a two-sided 95 % interval, in standard deviations.
_Z = 1.959964


class Pair(BaseModel):
    """Two people and the samples that both answered."""

    people: tuple[str, str]
    samples: int
    agreed: int
    share: float
    low: float
    """Ends of the 95 % interval of the share (Wilson 1927)."""
    high: float
    kappa: float | None = None
    """Cohen's kappa (1960): agreement beyond chance. None for numbers, and where both gave one and the same label."""


class Contradiction(BaseModel):
    """A sample that people do not agree on; every answer is kept."""

    sample_id: str
    answers: dict[str, str]
    """The newest answer by person."""
    counts: str
    """The answer that learning and judging go by: the newest."""


class Agreement(BaseModel):
    """What double labels say."""

    service: str
    people: dict[str, int]
    """Samples that each person answered."""
    corrected: int
    """Answers that the same person changed later."""
    pairs: list[Pair]
    contradictions: list[Contradiction]


def agreement(service: str, labels: Iterable[Label], numbers: bool = False) -> Agreement:
    """Compare people's newest answers, pair by pair.

    Args:
        service: that the labels are of.
        labels: all there are; those by other sources than people are left out.
        numbers: whether they are numbers: then 5 and 5.0 are the same, and there is no kappa.
    """
    given = sorted((x for x in labels if x.source == "human"), key=lambda x: (x.at, x.label))
    newest: dict[str, dict[str, str]] = defaultdict(dict)
    corrected = 0
    for one in given:
        text = repr(float(one.label)) if numbers else one.label
        answers = newest[one.sample_id]
        corrected += answers.get(one.by, text) != text
        answers.pop(one.by, None)  # so that the newest answer stands last
        answers[one.by] = text
    both: dict[tuple[str, str], list[tuple[str, str]]] = defaultdict(list)
    for answers in newest.values():
        for a, b in combinations(sorted(answers), 2):
            both[a, b].append((answers[a], answers[b]))
    return Agreement(
        service=service,
        people={by: sum(by in answers for answers in newest.values()) for by in sorted({x.by for x in given})},
        corrected=corrected,
        pairs=[_pair(people, answers, numbers) for people, answers in sorted(both.items())],
        contradictions=[
            Contradiction(sample_id=name, answers=dict(sorted(answers.items())), counts=list(answers.values())[-1])
            for name, answers in sorted(newest.items())
            if len(set(answers.values())) > 1
        ],
    )


def _pair(people: tuple[str, str], answers: Sequence[tuple[str, str]], numbers: bool) -> Pair:
    agreed = sum(a == b for a, b in answers)
    low, high = wilson(agreed, len(answers))
    return Pair(
        people=people,
        samples=len(answers),
        agreed=agreed,
        share=agreed / len(answers),
        low=low,
        high=high,
        kappa=None if numbers else _kappa(answers),
    )


def _kappa(answers: Sequence[tuple[str, str]]) -> float | None:
    if len({text for pair in answers for text in pair}) < 2:
        return None
    from sklearn.metrics import cohen_kappa_score

    return float(cohen_kappa_score([a for a, _ in answers], [b for _, b in answers]))


def wilson(hits: int, count: int) -> tuple[float, float]:
    """The 95 % score interval of a share (Wilson 1927, doi:10.1080/01621459.1927.10502953)."""
    share, z = hits / count, _Z
    middle = share + z * z / (2 * count)
    spread = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    scale = 1 + z * z / count
    return max(0.0, (middle - spread) / scale), min(1.0, (middle + spread) / scale)
