"""Which inputs are worth sending: a uniform audit share, then what a rule picks, each with its probability.

The audit draw is made from the sample's name and a secret of the node. It is uniform and knows nothing of
the answer, so estimates over audited samples are unbiased, and the same input sent twice is drawn the same way.
Everything else (rules, validity, duplicates, budget) is settled by the past and by the input before the draw is
looked at. Given the past, a sample that a rule would send has the probability 1, and any other the audit share.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from edgeloop.edge.selection.budget import HourlyBudget
from edgeloop.edge.selection.judgement import Judge, Sight, look

if TYPE_CHECKING:
    from edgeloop.clients.models import Answer
    from edgeloop.samples.selection import Selection
    from edgeloop.samples.service import NodeConfig


@dataclass(frozen=True)
class Choice:
    """Whether a sample is sent, why, and with what probability it would have been."""

    selected_by: str | None
    """``audit``, the name of a rule, or None."""
    probability: float
    """Of being sent, given everything before this sample; 0 where not even the audit had room."""
    value: float
    """What it is worth, in [0, 1]: how far beyond its rule's limit; 1 for the audit, 0 where no rule holds."""
    dropped: str | None
    """Why it is not sent: ``uninformative``, ``invalid-size``, ``invalid-black``, ``invalid-blur``, ``out-of-range``,
    ``duplicate``, ``budget`` or ``no-lease`` (the disk takes no lease of bytes); None where it is."""


def audit_draw(salt: bytes, sample_id: str) -> float:
    """A number in [0, 1), uniform over samples and always the same for one."""
    mark = hashlib.blake2b(sample_id.encode(), key=salt[:64], digest_size=8).digest()
    return (int.from_bytes(mark, "big") >> 11) / (1 << 53)


class ServiceSelector:
    """The choices of one service, and what they depend on. Methods may be called from any thread."""

    def __init__(self, budget: HourlyBudget) -> None:
        self._lock = threading.Lock()
        self._budget = budget
        self._judge = Judge()
        self._starved = 0

    def choose(self, policy: Selection, draw: float, seen: Sight, size: int) -> Choice:
        """Decide on one sample of ``size`` bytes; ``draw`` in [0, 1) decides the audit share and nothing else."""
        with self._lock:
            choice = self._choose(policy, draw, seen, size)
            self._starved += draw < policy.audit and choice.selected_by is None
            return choice

    def _choose(self, policy: Selection, draw: float, seen: Sight, size: int) -> Choice:
        budget, limit = self._budget, policy.bytes_per_hour
        budget.advance()
        rule, value, why = self._judge.verdict(policy, seen)
        by_audit = budget.admits_audit(size, limit)
        by_rule = rule is not None and budget.admits_rule(size, limit, policy.audit, value)
        probability = 1.0 if by_rule else policy.audit if by_audit else 0.0
        is_audit = by_audit and draw < policy.audit
        is_sent = (is_audit or by_rule) and budget.spend(size, limit, None if is_audit else value)
        budget.offer(size, value if rule else None)
        if not is_sent:
            no_room = "no-lease" if budget.takes_no_lease else "budget"
            return Choice(None, probability, value, no_room if rule or draw < policy.audit else why)
        self._judge.captured(policy, seen)
        return Choice("audit" if is_audit else rule, probability, 1.0 if is_audit else value, None)

    @property
    def starved(self) -> int:
        """Audited samples that the budget had no room for."""
        return self._starved


class Chooser(Protocol):
    """What an answer needs of selection; :class:`Selectors` is one."""

    def choose(self, config: NodeConfig, sample_id: str, payload: bytes, answer: Answer, size: int, /) -> Choice:
        """Decide on one answered input; ``size`` is the bytes that keeping it would send."""


class Selectors:
    """One :class:`ServiceSelector` per service; a new release changes its policy, not what it spent or saw."""

    def __init__(
        self,
        folder: Path,
        salt: bytes,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """``folder`` keeps the leases; ``salt`` is the node's secret; ``clock`` counts seconds and never goes back."""
        self._folder = folder
        self._salt = salt
        self._clock = clock
        self._wall = wall
        self._lock = threading.Lock()
        self._services: dict[str, ServiceSelector] = {}

    def choose(self, config: NodeConfig, sample_id: str, payload: bytes, answer: Answer, size: int) -> Choice:
        """Decide on one answered input; ``size`` is the bytes that keeping it would send.

        Each sample is to be asked about once: what is chosen is taken for captured and its bytes for spent.
        """
        draw = audit_draw(self._salt, sample_id)
        return self._of(config.service).choose(config.selection, draw, look(config, payload, answer), size)

    def _of(self, service: str) -> ServiceSelector:
        found = self._services.get(service)
        if found is not None:
            return found
        with self._lock:
            if service not in self._services:
                path = self._folder / f"{service}.json"
                self._services[service] = ServiceSelector(HourlyBudget(path, self._clock, self._wall))
            return self._services[service]

    def starved(self, service: str) -> int:
        """Audited samples of a service that the budget had no room for, since the start."""
        return self._of(service).starved
