"""How often the gate errs: rounds whose outcome is known, played by the gate that judges the fleet's models.

Two kinds of rounds. In some the candidate is fitted by the trainer of heads to real scans of digits (the test part of
Optdigits, which scikit-learn ships), with lessons that were spoilt on purpose; what a model is worth is measured on
scans that neither it nor the gate sees. In others the answers themselves are drawn, so that the true gain is exact.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import BaseModel

from edgeloop.learning.gate import decide
from edgeloop.learning.heads import fit_head
from edgeloop.samples.judging import Gate
from edgeloop.samples.service import Head

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgeloop.clients.models import LinearHead

    Numbers = NDArray[np.int64]
    Features = NDArray[np.float32]
    Answers = NDArray[np.float64]

#: Scans per round: for the champion's lesson, for a lesson of more data, and to judge.
LESSON, LONG_LESSON, JUDGES = 200, 800, 300
#: What false promotions may be at most, and what power must be at least.
MOST_FALSE, LEAST_POWER = 0.01, 0.8
_LABELS = [str(n) for n in range(10)]
Say = Callable[[str], None]


class Played(BaseModel):
    """One setting, played for some rounds."""

    setting: str
    models: Literal["fitted", "drawn"]
    samples: int
    """Gate samples of a round."""
    rounds: int
    better: int
    """Rounds in which the candidate was truly better."""
    promoted: int
    false: int
    """Promotions of candidates that were not better."""
    upper: float
    """Upper end of the one-sided 95 % interval of the share of false promotions (Clopper and Pearson 1934)."""
    power: float | None
    """Share of promotions among the rounds with a better candidate; None unless the setting is made for gains."""
    gain: float
    """Mean true gain in accuracy."""


class GateResult(BaseModel):
    """What came of all settings."""

    rounds: int
    confidence: float
    played: list[Played]


@dataclass(frozen=True)
class Round:
    """Answers of both models to the gate samples, float64 [samples], and the true gain in accuracy."""

    truth: Answers
    candidate: Answers
    champion: Answers
    gain: float


Play = Callable[[np.random.Generator], Round]


def bench_gate(rounds: int, seed: int = 0, say: Say = lambda _: None) -> GateResult:
    """Play every setting with the gate as it is by default; ``seed`` makes it repeatable."""
    config = Gate()
    scans = _scans()
    played: list[Played] = []
    for number, (name, spoil) in enumerate(SPOILT.items()):
        say(f"{name}: {rounds} rounds")
        play = _fitted(*scans, spoil)
        played.append(_play(name, "fitted", play, rounds, seed + number, config, gains=spoil is more_data))
    for number, (name, (samples, share, gain)) in enumerate(DRAWN.items()):
        say(f"{name}: {rounds} rounds")
        play = _drawn(samples, share, gain)
        played.append(_play(name, "drawn", play, rounds, seed + 100 + number, config, gains=gain > 0))
    return GateResult(rounds=rounds, confidence=config.confidence, played=played)


def _play(
    name: str, models: Literal["fitted", "drawn"], play: Play, rounds: int, seed: int, config: Gate, *, gains: bool
) -> Played:
    rng = np.random.default_rng(seed)
    promoted = better = right = samples = 0
    gained = 0.0
    for number in range(rounds):
        one = play(rng)
        verdict = decide(config, "accuracy", one.truth, one.candidate, one.champion, {}, seed=number).verdict
        samples, gained = len(one.truth), gained + one.gain
        better += one.gain > 0
        promoted += verdict == "pass"
        right += verdict == "pass" and one.gain > 0
    return Played(
        setting=name,
        models=models,
        samples=samples,
        rounds=rounds,
        better=better,
        promoted=promoted,
        false=promoted - right,
        upper=upper_bound(promoted - right, rounds),
        power=right / better if gains and better else None,
        gain=gained / rounds,
    )


def upper_bound(count: int, of: int, confidence: float = 0.95) -> float:
    """Upper end of the exact one-sided interval of a share that was seen ``count`` times in ``of`` draws."""
    from scipy.stats import beta

    return 1.0 if count >= of else float(beta.ppf(confidence, count + 1, of - count))


# --- fitted models


def _scans() -> tuple[Features, Numbers]:
    """1,797 scans of 8 x 8 pixels, float32 [scans, 64], and their digits."""
    from sklearn.datasets import load_digits

    found = load_digits()
    return found.data.astype(np.float32), found.target.astype(np.int64)


Lesson = tuple["Features", "Numbers"]
Spoil = Callable[[np.random.Generator, Lesson, Lesson], Lesson]


def resampled(rng: np.random.Generator, lesson: Lesson, _: Lesson) -> Lesson:
    """The champion's lesson once more, drawn with replacement."""
    again = rng.integers(len(lesson[1]), size=len(lesson[1]))
    return lesson[0][again], lesson[1][again]


def flipped(rng: np.random.Generator, lesson: Lesson, _: Lesson) -> Lesson:
    """10 to 40 % of the labels are replaced by another one."""
    wrong = rng.random(len(lesson[1])) < rng.uniform(0.1, 0.4)
    other = (lesson[1] + rng.integers(1, 10, len(lesson[1]))) % 10
    return lesson[0], np.where(wrong, other, lesson[1])


def shuffled(rng: np.random.Generator, lesson: Lesson, _: Lesson) -> Lesson:
    """Each scan has the label of another one."""
    return lesson[0][rng.permutation(len(lesson[1]))], lesson[1]


def more_data(rng: np.random.Generator, _: Lesson, longer: Lesson) -> Lesson:
    """Four times as many scans: a candidate that deserves promotion."""
    return longer


SPOILT: dict[str, Spoil] = {
    "the same lesson, resampled": resampled,
    "10 to 40 % of labels flipped": flipped,
    "features shuffled": shuffled,
    "four times the lesson": more_data,
}


def _fitted(features: Features, digits: Numbers, spoil: Spoil) -> Play:
    """A round of two heads: the champion of a sound lesson, the candidate of a spoilt one."""

    def play(rng: np.random.Generator) -> Round:
        order = rng.permutation(len(digits))
        learned, judging, unseen = np.split(order, np.cumsum([LONG_LESSON, JUDGES]))
        longer = features[learned], digits[learned]
        lesson = longer[0][:LESSON], longer[1][:LESSON]
        champion, candidate = _head(*lesson), _head(*spoil(rng, lesson, longer))
        gain = (_says(candidate, features[unseen]) == digits[unseen]).mean() - (
            _says(champion, features[unseen]) == digits[unseen]
        ).mean()
        rows = features[judging]
        return Round(digits[judging].astype(np.float64), _says(candidate, rows), _says(champion, rows), float(gain))

    return play


def _head(features: Features, digits: Numbers) -> LinearHead:
    return fit_head(features, [str(n) for n in digits], _LABELS, Head(c=0.1), seed=0)


def _says(head: LinearHead, features: Features) -> Answers:
    return np.asarray(head.probabilities(features).argmax(axis=1), dtype=np.float64)


# --- drawn answers

#: Gate samples, the share on which the models disagree, and the true gain.
DRAWN: dict[str, tuple[int, float, float]] = {
    "equal models, 8 % disagree": (1000, 0.08, 0.0),
    "equal models, 40 % disagree": (300, 0.4, 0.0),
    "equal models, few samples": (30, 0.3, 0.0),
    "a true gain of 3 points, 8 % disagree": (1000, 0.08, 0.03),
}


def _drawn(samples: int, share: float, gain: float) -> Play:
    """A round of answers: on a share of the samples exactly one model is right, on a twentieth none is."""

    def play(rng: np.random.Generator) -> Round:
        draw = rng.random(samples)
        candidate_alone = draw < (share + gain) / 2
        champion_alone = ~candidate_alone & (draw < share)
        neither = draw > 0.95
        right = np.zeros(samples)
        return Round(
            right, (champion_alone | neither).astype(np.float64), (candidate_alone | neither).astype(np.float64), gain
        )

    return play


def gate_text(result: GateResult) -> str:
    """The table for people."""
    lines = [
        f"{'setting':40} {'models':7} {'samples':>7} {'rounds':>6} {'gain':>7} {'promoted':>8} {'false':>5}"
        f" {'at most':>8} {'power':>6}"
    ]
    for one in result.played:
        power = "" if one.power is None else f"{one.power:.3f}"
        lines.append(
            f"{one.setting:40} {one.models:7} {one.samples:7d} {one.rounds:6d} {one.gain:+7.3f} {one.promoted:8d}"
            f" {one.false:5d} {one.upper:8.4f} {power:>6}"
        )
    lines.append(
        f"Aims: false promotions at most {MOST_FALSE:.0%} of rounds; power at least {LEAST_POWER:.0%} at a gain of 3"
        " points. 'at most' is the upper end of the one-sided 95 % interval of the share of false promotions."
    )
    return "\n".join(lines)
