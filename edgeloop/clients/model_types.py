"""What every model is to its callers, wherever it runs; here so that each kind of model can be read alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from edgeloop.errors import EdgeloopError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class UnloadableModel(EdgeloopError):
    """The bytes of a release do not make a model that runs here, or its server does not know the model."""


class MalformedAnswer(EdgeloopError):
    """A model answered something that is no answer of its service."""


@dataclass(frozen=True)
class Answer:
    """What a model says of one input."""

    prediction: str
    """Label of a classifier, or the decimal number of a regressor."""
    confidence: float | None
    """Probability of the label; None for a regressor."""
    probabilities: tuple[float, ...] | None
    """One per label, in the order of the labels."""
    embedding: NDArray[np.float16] | None
    """Backbone features, shape [features]; None where there is no backbone."""
    image: NDArray[np.uint8] | None = None
    """The square RGB image that the model saw, shape [side, side, 3]; None where it saw none."""
    boxes: tuple[float, ...] | None = None
    """Confidence of each box that a detector found; None for every other model."""

    @property
    def value(self) -> float:
        """The number a regressor answered."""
        return float(self.prediction)


class Model(Protocol):
    """One loaded model. ``predict`` may be called from several threads and runs in the calling one."""

    labels: tuple[str, ...] | None
    backbone_digest: str | None

    def predict(self, payload: bytes) -> Answer:
        """Answer one payload; raises UndecodablePayload when it is no input of this model."""
        ...
