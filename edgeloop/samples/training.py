"""How a service makes its candidates: the settings of its trainer, apart from what the service is."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Head(_Strict):
    """The head fitted on backbone features."""

    kind: Literal["linear", "ncm", "slda", "ranpac", "mlp"] = "linear"
    """``linear`` (logistic regression), ``ncm`` (nearest class mean), ``slda`` (linear discriminant analysis),
    ``ranpac`` (ridge regression on random features) or ``mlp`` (one hidden layer, trained)."""
    c: float = Field(default=0.1, gt=0)
    """Inverse regularisation strength, as in scikit-learn's LogisticRegression."""
    max_iter: int = Field(default=300, ge=10)
    tol: float = Field(default=1e-3, gt=0)
    """Where the fit stops; a smaller one costs seconds and changes nothing that was measured."""
    shrinkage: float = Field(default=0.01, ge=0, le=1)
    """``slda``: share of a round covariance."""
    units: int | None = Field(default=None, ge=2, le=10_000)
    """Width of the hidden layer: 2000 for ``ranpac``, 64 for ``mlp`` if None."""


class Full(_Strict):
    """Training of the whole backbone (``mode: full``)."""

    epochs: int = Field(default=5, ge=1, le=1000)
    """Passes over the images, at most."""
    batch_size: int = Field(default=32, ge=2, le=1024)
    learning_rate: float = Field(default=1e-3, gt=0, le=1)
    """Peak rate of a training from scratch."""
    fine_tuning_rate: float = Field(default=1e-4, gt=0, le=1)
    """Peak rate where training starts from weights that were trained before."""
    augment: bool = True
    validation: float = Field(default=0.1, ge=0, le=0.5)
    """Share of the pool's groups that only says when to stop; 0 trains on all of it, to the last epoch."""
    patience: int = Field(default=3, ge=1)
    """Epochs without a lower loss on the held-out part until training stops; the best epoch's weights are kept."""
    precision: Literal["auto", "float32", "mixed"] = "auto"
    """``mixed`` computes in float16 where that is safe; ``auto`` does so on a GPU that is quick at it."""
    quantize: Literal["dynamic", "float32"] = "dynamic"


class Trainer(_Strict):
    """How a candidate is made."""

    backbone: str | None = None
    """``xception`` (from scratch), ``xception:imagenet``, ``xception:FILE.keras``, or a LiteRT extractor (.tflite)."""
    head: Head = Head()
    full: Full = Full()
    replay: int = Field(default=5000, ge=0)
    """Most samples of earlier promoted dataset versions that a retrain learns from again, drawn uniformly."""
    pipeline: str = "edgeloop.learning.tabular:elastic_net"
    """Dotted path of a function that returns a scikit-learn estimator (tabular services)."""
    params: dict[str, Any] = Field(default_factory=dict)
    """Keyword arguments of ``pipeline``."""
    incremental: bool = False
    """Go on with the champion's pipeline by ``partial_fit``, not from scratch (tabular services)."""
    importance: bool = False
    """Weigh samples by one over the probability with which they were selected."""
    balanced: bool = False
    """Give all labels that occur the same total weight (classifiers)."""
    seed: int = 0
