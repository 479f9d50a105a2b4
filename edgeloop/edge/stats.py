"""What a node counts, for its reports and for Prometheus."""

from __future__ import annotations

import bisect
import math
import threading
from collections import Counter, OrderedDict, deque
from dataclasses import dataclass, field

#: Upper bounds of the latency histogram, in seconds.
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
#: Why an MQTT message is no input of a service; ``unknown`` is the service, and such a message is answered.
IGNORED = ("retained", "topic", "unknown")
_WINDOW = 2048
#: Audited samples whose last label is remembered: as many as the gateway remembers results, without which none counts.
_REMEMBERED = 10_000


@dataclass
class ServiceStats:
    """Counters of one service since the start of the process."""

    outcomes: Counter[str] = field(default_factory=Counter)
    """``ok``, ``bad_input``, ``model_error``, ``not_ready``."""
    captured: Counter[str] = field(default_factory=Counter)
    """By what selected them."""
    not_captured: int = 0
    """Chosen, but the spool did not take them."""
    passed: Counter[str] = field(default_factory=Counter)
    """Answered and not chosen, by the reason."""
    audit: Counter[str] = field(default_factory=Counter)
    """Audited answers that a device ``labelled``, and those that ``agreed``, by what was said last of each."""
    said: OrderedDict[str, bool] = field(default_factory=OrderedDict)
    """Whether the last label of an audited sample agreed, of those that were labelled lately."""
    feedback_refused: int = 0
    histogram: list[int] = field(default_factory=lambda: [0] * 10)
    buckets: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS) + 1))
    seconds: float = 0.0
    release_answered: int = 0
    """Since the serving release was loaded,"""
    release_failed: int = 0
    """as this, and the window of latencies, the histogram of confidences and the audit."""
    window: deque[float] = field(default_factory=lambda: deque(maxlen=_WINDOW))

    @property
    def failed(self) -> int:
        """Inputs that got an error."""
        return sum(n for outcome, n in self.outcomes.items() if outcome != "ok")

    def quantile(self, share: float) -> float | None:
        """Latency in ms that ``share`` of the last answers were within; None before the first."""
        if not self.window:
            return None
        ordered = sorted(self.window)
        return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))] * 1000, 3)


class Stats:
    """The counters of all services; every method may be called from any thread."""

    def __init__(self, services: list[str]) -> None:
        self.lock = threading.Lock()
        self.services = {name: ServiceStats() for name in services}
        self.ignored: Counter[str] = Counter()
        """MQTT messages that were no input of a service, by the reason: one of :data:`IGNORED`."""

    def answered(self, service: str, seconds: float, confidence: float | None) -> None:
        """Count one good answer."""
        with self.lock:
            stats = self.services[service]
            stats.outcomes["ok"] += 1
            stats.release_answered += 1
            stats.window.append(seconds)
            stats.seconds += seconds
            stats.buckets[bisect.bisect_left(BUCKETS, seconds)] += 1
            if confidence is not None and math.isfinite(confidence):
                stats.histogram[max(0, min(9, int(confidence * 10)))] += 1

    def failed(self, service: str, outcome: str) -> None:
        """Count one error."""
        with self.lock:
            stats = self.services[service]
            stats.outcomes[outcome] += 1
            stats.release_failed += 1

    def captured(self, service: str, selected_by: str, *, taken: bool) -> None:
        """Count one chosen sample."""
        with self.lock:
            stats = self.services[service]
            if taken:
                stats.captured[selected_by] += 1
            else:
                stats.not_captured += 1

    def passed(self, service: str, reason: str) -> None:
        """Count one answered input that was not chosen."""
        with self.lock:
            self.services[service].passed[reason] += 1

    def audited(self, service: str, sample: str, *, agreed: bool) -> None:
        """Count one audited answer that a device labelled: once, by the last word, however often minds change."""
        with self.lock:
            stats = self.services[service]
            before = stats.said.pop(sample, None)
            stats.said[sample] = agreed
            if len(stats.said) > _REMEMBERED:
                stats.said.popitem(last=False)
            stats.audit["labelled"] += before is None
            stats.audit["agreed"] += agreed - bool(before)

    def feedback_refused(self, service: str) -> None:
        """Count one feedback message that was no use; one for a service that is not here is nobody's."""
        with self.lock:
            if service in self.services:
                self.services[service].feedback_refused += 1

    def new_release(self, service: str) -> None:
        """Start all that is said of the serving release anew."""
        with self.lock:
            stats = self.services[service]
            stats.release_answered = stats.release_failed = 0
            stats.window.clear()
            stats.histogram = [0] * 10
            stats.audit = Counter()
            stats.said.clear()
