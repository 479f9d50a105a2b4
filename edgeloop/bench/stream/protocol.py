"""The protocol that every method is put through: predict, send, ask, learn, gate, score, bucket by bucket.

Only :func:`run_method` touches gate and test; a method gets a pool's features, and labels of what it asked for.
"""

from __future__ import annotations

import time
import zlib
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from edgeloop.bench.stream.learner import Learner, Model
from edgeloop.bench.stream.policy import Batch, Choice, Method, Seen
from edgeloop.bench.stream.split import Part, SplitBucket, SplitStream
from edgeloop.errors import EdgeloopError
from edgeloop.learning.gate import decide
from edgeloop.samples.service import Gate

if TYPE_CHECKING:
    from numpy.typing import NDArray

UPLOAD = 0.20
LABELS = 0.05
AUDIT = 0.01
#: CPU-seconds that learning may take in a round; several times what the slowest method takes.
BUDGET = 30.0
#: Verdict of a candidate that took longer to learn; the gate never sees it.
LATE = "over budget"
#: A held candidate that is better on the locked test by at least this was rejected falsely.
MISSED = 0.01


class OverBudget(EdgeloopError):
    """A method chose more than it may, or what is not there."""


@dataclass(frozen=True)
class Round:
    """What one round came to."""

    number: int
    verdict: str
    """``pass``, ``fail``, ``inconclusive``, ``over budget``, or ``none`` where there was no candidate."""
    reason: str
    false_promotion: bool = False
    false_rejection: bool = False


@dataclass
class Run:
    """One method on one seed."""

    method: str
    seed: int
    prequential: list[NDArray[np.bool_]] = field(default_factory=list)
    """Right answers of the deployed model on pool t before round t, one array per round from 1."""
    deployed: list[list[NDArray[np.bool_]]] = field(default_factory=list)
    """Right answers on test j of the model deployed after round t, [t][j]."""
    candidate: list[list[float]] = field(default_factory=list)
    """Accuracy on test j of the candidate of round t, [t][j]; the deployed model's where there was none."""
    rounds: list[Round] = field(default_factory=list)
    labels: int = 0
    samples: int = 0
    bytes: int = 0
    pooled: int = 0
    cpu_seconds: float = 0.0
    slowest: float = 0.0
    """CPU-seconds of the round that took longest to learn."""


def run_method(
    kind: type[Method],
    split: SplitStream,
    learner: Learner,
    seed: int,
    delay: int = 0,
    gate: Gate | None = None,
    budget: float = BUDGET,
) -> Run:
    """Put one method through the stream.

    Args:
        kind: the method.
        split: who may learn from what.
        learner: shared by all methods of this seed.
        seed: of the draws; the audit draw is the same for all methods.
        delay: rounds by which what was sent, and gate labels, come late; 0 or 1.
        gate: settings of the gate; the defaults of a service if None.
        budget: CPU-seconds of this process, threads of BLAS among them, that learning may take in a round; a candidate
            that took more is dropped. The upper bound, ``joint``, has no limit.

    Raises:
        OverBudget: the method broke the rules.
    """
    method = kind(learner, np.random.default_rng([seed, zlib.crc32(kind.name.encode())]))
    course = _Course(method, split, Run(kind.name, seed), seed, delay, gate or Gate(), budget)
    course.start()
    for number in range(1, len(split.buckets)):
        course.play(number)
    return course.run


class _Course:
    def __init__(
        self, method: Method, split: SplitStream, run: Run, seed: int, delay: int, gate: Gate, budget: float
    ) -> None:
        self.method, self.split, self.run = method, split, run
        self._seed, self._delay, self._gate, self._budget = seed, delay, gate, budget
        self._waiting: deque[Batch] = deque()
        self._deployed: Model

    def start(self) -> None:
        pool = self.split.buckets[0].pool
        began = time.process_time()
        self._deployed = self.method.begin(Batch(0, pool.features, pool.truth, pool.features[:0]))
        self.run.cpu_seconds += time.process_time() - began
        self._score(self._deployed, self._deployed)

    def play(self, number: int) -> None:
        pool = self.split.buckets[number].pool
        probabilities = self._deployed.probabilities(pool.features)
        self.run.prequential.append(probabilities.argmax(axis=1) == pool.truth)
        self._waiting.append(self._collect(number, pool, probabilities))
        before = self._deployed
        candidate, late = self._learn() if len(self._waiting) > self._delay else (None, "")
        verdict, reason = (LATE, late) if late else ("none", "no candidate")
        if candidate:
            verdict, reason = self._judge(candidate, number)
        if candidate and verdict == "pass":
            self._deployed = candidate
        self._score(candidate or before, self._deployed)
        self.run.rounds.append(self._booked(number, verdict, reason, before, candidate))

    def _collect(self, number: int, pool: Part, probabilities: NDArray[np.float64]) -> Batch:
        count, method = len(pool.truth), self.method
        audit = np.zeros(0, np.intp)
        upload, ask = int(UPLOAD * count), max(1, round(LABELS * count))
        audits = max(1, round(AUDIT * count))
        if method.unlimited:
            choice = Choice(np.arange(count), np.arange(count))
        else:
            if method.audited:
                audit = np.random.default_rng([self._seed, number, 17]).permutation(count)[:audits]
            else:
                upload, ask = upload + audits, ask + audits
            began = time.process_time()
            choice = method.choose(Seen(number, pool.features, probabilities, max(upload, ask), ask))
            self.run.cpu_seconds += time.process_time() - began
            _check(choice, count, max(upload, ask), ask, method.name)
        labelled = _union(choice.ask, audit)
        sent = _union(choice.upload, labelled)
        self.run.labels += len(labelled)
        self.run.samples += len(sent)
        self.run.bytes += int(pool.sizes[sent].sum())
        self.run.pooled += count
        rest = np.setdiff1d(sent, labelled)
        return Batch(number, pool.features[labelled], pool.truth[labelled], pool.features[rest])

    def _learn(self) -> tuple[Model | None, str]:
        """The candidate, and why it was dropped where it took too long."""
        began = time.process_time()
        candidate = self.method.learn(self._waiting.popleft(), self._deployed)
        spent = time.process_time() - began
        self.run.cpu_seconds += spent
        self.run.slowest = max(self.run.slowest, spent)
        if candidate and spent > self._budget and not self.method.unlimited:
            return None, f"{spent:.2f} of {self._budget:g} CPU-seconds"
        return candidate, ""

    def _judge(self, candidate: Model, number: int) -> tuple[str, str]:
        if self.method.own_gate:
            passed = self.method.promotes(candidate, self._deployed)
            return ("pass" if passed else "fail"), "its own gate"
        labelled = self.split.buckets[: number - self._delay + 1]
        truth = np.concatenate([b.gate.truth for b in labelled]).astype(np.float64)
        new, old = (
            np.concatenate([_answers(model, b.gate) for b in labelled]).astype(np.float64)
            for model in (candidate, self._deployed)
        )
        is_old = np.concatenate([np.full(len(b.gate.truth), b is not labelled[-1]) for b in labelled])
        decision = decide(self._gate, "accuracy", truth, new, old, {"old": is_old}, seed=self._seed)
        return decision.verdict, decision.reason

    def _score(self, candidate: Model, deployed: Model) -> None:
        hits = [_answers(deployed, b.test) == b.test.truth for b in self.split.buckets]
        tried = (
            hits if candidate is deployed else [_answers(candidate, b.test) == b.test.truth for b in self.split.buckets]
        )
        self.run.deployed.append(hits)
        self.run.candidate.append([float(one.mean()) for one in tried])

    def _booked(self, number: int, verdict: str, reason: str, before: Model, candidate: Model | None) -> Round:
        """Hold the verdict against the locked test of the buckets so far."""
        if candidate is None:
            return Round(number, verdict, reason)
        seen = self.split.buckets[: number + 1]
        gain = _accuracy(candidate, seen) - _accuracy(before, seen)
        passed = verdict == "pass"
        return Round(number, verdict, reason, passed and gain < 0, not passed and gain >= MISSED)


def _answers(model: Model, part: Part) -> NDArray[np.int64]:
    return np.asarray(model.probabilities(part.features).argmax(axis=1), np.int64)


def _accuracy(model: Model, buckets: tuple[SplitBucket, ...]) -> float:
    return float(np.mean([(_answers(model, b.test) == b.test.truth).mean() for b in buckets]))


def _check(choice: Choice, count: int, upload: int, ask: int, name: str) -> None:
    both = np.concatenate([choice.upload, choice.ask])
    if len(choice.upload) > upload or len(choice.ask) > ask:
        raise OverBudget(
            f"method {name} sends {len(choice.upload)} of {upload} and asks {len(choice.ask)} of {ask}: choose fewer"
        )
    if len(both) and (both.min() < 0 or both.max() >= count or len(np.setdiff1d(choice.ask, choice.upload))):
        raise OverBudget(f"method {name} asks for what it did not send, or sends what is not there: mend its choose()")


def _union(first: NDArray[np.intp], second: NDArray[np.intp]) -> NDArray[np.intp]:
    """Both, in the order of arrival."""
    return np.union1d(first, second).astype(np.intp)
