"""What a foreign model server means: its outputs, of whatever name and form, as one answer of the service.

Servers agree on how tensors travel and not on what they mean, so the meaning is read off the name where it is a usual
one, and off the form otherwise. What fits nothing is an error, never a guess.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from edgeloop.clients.endpoint_wire import Outputs
from edgeloop.clients.model_types import Answer, MalformedAnswer

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_MAIN = ("prediction", "predict", "label", "class")
_PROBABILITIES = ("probabilities", "predict_proba", "output_probability", "scores")
_BOXES = ("boxes", "detection_scores")
_BOX_CLASSES = ("detection_classes",)
_BESIDE = {"confidence", "sample_id", "detection_boxes", "num_detections", *_PROBABILITIES, *_BOXES, *_BOX_CLASSES}
#: Probabilities that went through float16 or a rounding JSON do not sum to one exactly.
_SUM_TOLERANCE = 0.01


def answer_of(outputs: Outputs, labels: Sequence[str] | None, image: NDArray[np.uint8] | None = None) -> Answer:
    """Map the outputs for one input to an answer; ``labels`` is None for a regressor.

    A regressor's answer is one finite number. A classifier's is one probability per label, a label, the number of a
    class, or with two labels the probability of the second. ``boxes`` are a detector's confidences.

    Raises:
        MalformedAnswer: the outputs are none of that.
    """
    boxes = _boxes(outputs)
    main = _main(outputs)
    if labels is None:
        return Answer(repr(_number(main)), None, None, None, image, boxes)
    probabilities = _probabilities(outputs, main, labels)
    if probabilities is not None:
        best = max(range(len(labels)), key=probabilities.__getitem__)
        return Answer(labels[best], probabilities[best], probabilities, None, image, boxes)
    if boxes is not None and not main:
        return _of_boxes(outputs, boxes, labels, image)
    label, confidence = _label(main, labels), outputs.get("confidence")
    return Answer(label, _share(confidence) if confidence else None, None, None, image, boxes)


def _named(outputs: Outputs, names: Sequence[str]) -> list[Any] | None:
    return next((outputs[name] for name in names if name in outputs), None)


def _main(outputs: Outputs) -> list[Any]:
    named = _named(outputs, _MAIN)
    if named is not None:
        return named
    return next((values for name, values in outputs.items() if name not in _BESIDE), [])


def _number(values: list[Any]) -> float:
    if len(values) != 1 or isinstance(values[0], str | bool) or not _is_finite(values[0]):
        raise MalformedAnswer(f"the answer {values!s:.80} is not one finite number: mend the model")
    return float(values[0])


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _probabilities(outputs: Outputs, main: list[Any], labels: Sequence[str]) -> tuple[float, ...] | None:
    named = _named(outputs, _PROBABILITIES)
    if named is None and len(main) == 1 and isinstance(main[0], float) and len(labels) == 2:
        second = _share(main)
        return (1 - second, second)
    found = named if named is not None else main
    if named is None and (len(found) != len(labels) or not all(isinstance(v, int | float) for v in found)):
        return None
    if not all(_is_finite(v) for v in found) or len(found) != len(labels):
        raise MalformedAnswer(f"{found!s:.80} is not one number for each of {len(labels)} labels: mend the model")
    if min(found) < 0 or abs(sum(found) - 1) > _SUM_TOLERANCE:
        raise MalformedAnswer(f"{found!s:.80} are no probabilities: let the model end in a softmax")
    return tuple(float(v) for v in found)


def _share(values: list[Any]) -> float:
    if len(values) != 1 or not _is_finite(values[0]) or not 0 <= values[0] <= 1:
        raise MalformedAnswer(f"{values!s:.80} is not one probability: mend the model")
    return float(values[0])


def _label(values: list[Any], labels: Sequence[str]) -> str:
    """One label by its name, or by its number where no label has that name."""
    if len(values) == 1:
        value = int(values[0]) if isinstance(values[0], float) and values[0].is_integer() else values[0]
        if str(value) in labels:
            return str(value)
        if isinstance(value, int) and 0 <= value < len(labels):
            return labels[value]
    raise MalformedAnswer(f"the answer {values!s:.80} is none of the {len(labels)} labels: mend the model")


def _boxes(outputs: Outputs) -> tuple[float, ...] | None:
    values = _named(outputs, _BOXES)
    return None if values is None else tuple(_share([v]) for v in values)


def _of_boxes(
    outputs: Outputs, boxes: tuple[float, ...], labels: Sequence[str], image: NDArray[np.uint8] | None
) -> Answer:
    """A detector without an answer of its own: the class of its surest box, and the empty label where it saw none."""
    if not boxes:
        return Answer("", 0.0, None, None, image, boxes)
    best = max(range(len(boxes)), key=boxes.__getitem__)
    classes = _named(outputs, _BOX_CLASSES) or []
    return Answer(_label(classes[best : best + 1], labels), boxes[best], None, None, image, boxes)
