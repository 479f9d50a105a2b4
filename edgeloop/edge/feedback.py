"""What a device says the right answer was: checked before it is kept, because nobody asks the device again."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass

from edgeloop.errors import BadInput
from edgeloop.samples.service import NodeConfig

_LONGEST = 200
_HEX = set("0123456789abcdef")


class MalformedFeedback(BadInput):
    """A feedback message does not say which sample is what."""


class UnknownSample(BadInput):
    """Feedback names a sample that this node did not capture."""


@dataclass(frozen=True)
class Feedback:
    """One feedback message."""

    sample_id: str
    label: str
    by: str | None


def parse_feedback(payload: bytes) -> Feedback:
    """Read ``{"sample_id": …, "label": …, "by": …}``; ``by`` may be left out, a number is taken as its decimal.

    Raises:
        MalformedFeedback: anything else.
    """
    try:
        value = json.loads(payload)
        name, label, by = value["sample_id"], value["label"], value.get("by")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise MalformedFeedback('feedback is not {"sample_id": …, "label": …}: send that as JSON') from error
    if isinstance(label, int | float) and not isinstance(label, bool):
        label = repr(label)
    if not _is_text(label) or (by is not None and not _is_text(by)):
        raise MalformedFeedback(f"label or by is not a text of at most {_LONGEST} characters: send one")
    if not is_sample_id(name):
        raise MalformedFeedback(f"sample_id is {name!r:.80}: send the one of the result")
    return Feedback(name, label, by or None)


def named_sample(payload: bytes) -> str | None:
    """The sample that a feedback message names, also where the rest of it is wrong; None if it names none."""
    try:
        name = json.loads(payload)["sample_id"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return name if is_sample_id(name) else None


def is_sample_id(name: object) -> bool:
    """Whether ``name`` can be a sample's."""
    return isinstance(name, str) and len(name) == 64 and _HEX.issuperset(name)


def check_label(config: NodeConfig, label: str) -> None:
    """Raise MalformedFeedback unless ``label`` can be an answer of this service."""
    if config.labels is not None:
        if label not in config.labels:
            raise MalformedFeedback(f"label is {label[:80]!r}: send one of {', '.join(config.labels)}")
        return
    try:
        fine = math.isfinite(float(label))
    except ValueError:
        fine = False
    if not fine:
        raise MalformedFeedback(f"label is {label[:80]!r}: send a finite number")


def _is_text(value: object) -> bool:
    # A lone surrogate is a str that no file can hold.
    return isinstance(value, str) and len(value) <= _LONGEST and value.isprintable()
