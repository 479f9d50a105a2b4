"""What a policy says of one answered input: invalid, a duplicate, uninformative, or worth so much by such a rule."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from edgeloop.edge.selection.duplicates import Late
from edgeloop.edge.selection.informativeness import value_of
from edgeloop.edge.selection.novelty import CoreSet, direction
from edgeloop.edge.selection.validity import Look, image_fault, row_fault, size_fault
from edgeloop.samples.selection import NoveltyRule

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from edgeloop.clients.models import Answer
    from edgeloop.samples.selection import Selection
    from edgeloop.samples.service import NodeConfig


@dataclass(frozen=True)
class Sight:
    """What is measured on one input, before the past comes in; each measure once, and only when asked for."""

    answer: Answer
    invalid: str | None
    image: Look | None

    @cached_property
    def direction(self) -> NDArray[np.float32] | None:
        """The embedding as a unit vector."""
        return direction(self.answer.embedding)

    @property
    def dhash(self) -> int | None:
        """Difference hash of the image."""
        return self.image.dhash if self.image else None


def look(config: NodeConfig, payload: bytes, answer: Answer) -> Sight:
    """Measure an input. Of an image that the answer does not show only the size is known."""
    image = None if answer.image is None else Look(answer.image)
    validity = config.selection.validity
    invalid = size_fault(payload, validity) or (image_fault(image, validity) if image else None)
    if invalid is None and validity.out_of_range == "drop" and config.features:
        invalid = row_fault(payload, config.features)
    return Sight(answer, invalid, image)


class Judge:
    """Judges inputs by a policy and by what was captured before. One thread at a time.

    A new policy keeps what was captured, as far as it is still comparable.
    """

    def __init__(self) -> None:
        self._core: CoreSet | None = None
        self._late: Late | None = None
        self._policy: Selection | None = None
        self._novelty: NoveltyRule | None = None

    def verdict(self, policy: Selection, seen: Sight) -> tuple[str | None, float, str]:
        """(rule that selects or None, value in [0, 1], why not if nothing selects).

        The value is the highest of the rules that hold. A rule selects what is valid and no duplicate.
        """
        self._adopt(policy)
        if seen.invalid:
            return None, 0.0, seen.invalid
        values = [(rule.rule, value_of(rule, seen.answer, lambda: self._distance(seen))) for rule in policy.rules]
        holding = [(name, value) for name, value in values if value is not None]
        if not holding:
            return None, 0.0, "uninformative"
        value = max(value for _, value in holding)
        if self._late is not None and self._late.has_near(seen.direction, self._hash(seen)):
            return None, value, "duplicate"
        return holding[0][0], value, ""

    def captured(self, policy: Selection, seen: Sight) -> None:
        """Learn what was captured."""
        self._adopt(policy)
        vector = seen.direction if self._novelty or self._late else None
        if self._novelty is not None and vector is not None:
            if self._core is None or self._core.length != len(vector):
                self._core = CoreSet(self._novelty.size, len(vector))
            self._core.add(vector)
        if self._late is not None:
            self._late.add(vector, self._hash(seen))

    def _adopt(self, policy: Selection) -> None:
        if policy is self._policy:
            return
        self._policy = policy
        self._novelty = next((rule for rule in policy.rules if isinstance(rule, NoveltyRule)), None)
        if self._core is not None and self._novelty is not None and self._core.size != self._novelty.size:
            self._core = self._core.resized(self._novelty.size)
        if policy.duplicates is None:
            self._late = None
        elif self._late is None or self._late.policy != policy.duplicates:
            self._late = Late(policy.duplicates)

    def _distance(self, seen: Sight) -> float | None:
        if seen.direction is None:
            return None
        if self._core is None or self._core.length != len(seen.direction):
            return 2.0
        return self._core.distance(seen.direction)

    def _hash(self, seen: Sight) -> int | None:
        return seen.dhash if self._late is not None and self._late.policy.by == "dhash" else None
