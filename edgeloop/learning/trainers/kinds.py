"""The kinds of head that ``trainer.head.kind`` can name, in one table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from edgeloop.clients.models import LinearHead
from edgeloop.learning.heads import fit_head
from edgeloop.learning.trainers.mlp import SmallNetwork
from edgeloop.learning.trainers.ncm import NearestMean
from edgeloop.learning.trainers.protocol import HeadTrainer
from edgeloop.learning.trainers.ranpac import RanPac
from edgeloop.learning.trainers.slda import StreamingLda
from edgeloop.samples.service import Head, Trainer

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Logistic:
    """``fit_head`` as a trainer."""

    config: Head = field(default_factory=Head)
    balanced: bool = False

    def fit(
        self,
        features: NDArray[np.float32],
        truth: Sequence[str],
        labels: Sequence[str],
        sample_weight: NDArray[np.float64] | None = None,
        seed: int = 0,
    ) -> LinearHead:
        """Fit on float32 [samples, features]. Raises what ``fit_head`` does."""
        return fit_head(features, truth, labels, self.config, seed, sample_weight=sample_weight, balanced=self.balanced)


#: By kind: a trainer with the service's settings, that gives all labels the same weight if the second is true.
KINDS: dict[str, Callable[[Head, bool], HeadTrainer]] = {
    "linear": Logistic,
    "ncm": lambda head, balanced: NearestMean(balanced),
    "slda": lambda head, balanced: StreamingLda(head.shrinkage, balanced),
    "ranpac": lambda head, balanced: RanPac(head.units or RanPac.width, balanced),
    "mlp": lambda head, balanced: SmallNetwork(head.units or SmallNetwork.hidden, balanced=balanced),
}


def head_trainer(trainer: Trainer) -> HeadTrainer:
    """The trainer of heads that a service asks for."""
    return KINDS[trainer.head.kind](trainer.head, trainer.balanced)
