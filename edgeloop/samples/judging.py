"""What a service asks of a candidate before it may replace the champion: margins, budgets, vetoes, least counts."""

from __future__ import annotations

import math

from pydantic import BaseModel, ConfigDict, Field, model_validator

from edgeloop.samples.records import LabelSource


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Veto(_Strict):
    """When a drop on one slice of the gate samples refuses a candidate, whatever it gains elsewhere."""

    margin: float | None = Field(default=None, ge=0)
    """A drop up to this is allowed; ``slice_margin`` if None."""
    large: float | None = Field(default=None, ge=0)
    """Classifiers: a larger drop than this refuses even where chance could make it; twice the margin if None."""
    confidence: float = Field(default=0.9, gt=0.5, lt=1)
    """A drop over the margin refuses if it is this sure that there is one."""
    min_samples: int = Field(default=0, ge=0)
    """With fewer samples in the slice, what would pass is inconclusive."""


class Vetoes(_Strict):
    """The slices that may refuse a candidate."""

    old: Veto | None = Veto()
    """Samples that the champion's dataset had."""
    new: Veto | None = None
    """The others."""
    audit: Veto | None = None
    """Samples chosen regardless of what the model said."""
    hard: Veto | None = None
    """Samples that a rule chose."""


class Gate(_Strict):
    """When a candidate may replace the champion."""

    trust: tuple[LabelSource, ...] = Field(default=("human",), min_length=1)
    """Sources whose labels may judge; labels of other sources train only, so that wrong ones cannot vote for
    the model that learned them."""
    min_samples: int = Field(default=30, ge=2)
    """Fewer locked gate samples than this are inconclusive, not a pass."""
    margin: float = 0.0
    """The lower confidence bound of the gain in the metric must be above this."""
    slice_margin: float = Field(default=0.05, ge=0)
    """What a slice with a veto may lose, unless its veto says otherwise."""
    veto: Vetoes = Vetoes()
    confidence: float = Field(default=0.99, gt=0.5, lt=1)
    """Of the one-sided bound; one less this is also the level of the exact test."""
    exact: bool = True
    """Whether an exact test must agree. Without it a few dozen gate samples can decide, and err more often."""
    resamples: int = Field(default=2000, ge=100)
    max_release_bytes: int | None = Field(default=None, ge=1)
    max_latency_ratio: float | None = Field(default=3.0, gt=0)
    """Most that an answer may take, as a multiple of the champion's time on the same machine."""
    max_latency_ms: float | None = Field(default=None, gt=0)
    """The same in milliseconds, on the machine that judges."""
    min_agreement: float = Field(default=0.99, ge=0, le=1)
    """Least share of gate samples on which the exported model answers as the trained one."""
    max_samples: int | None = Field(default=5000, ge=2)
    """Of more gate samples so many judge, drawn by a hash of their names, and of test samples likewise, so that a round
    does not cost more with all that was ever labelled; null takes all. Worn ones make room for others."""
    max_reuse: int = Field(default=50, ge=1)
    """Decisions that one gate sample may make; then it only refuses what does harm."""
    near_duplicates: float | None = Field(default=0.95, gt=0, le=1)
    """Photos that are alike at least so much do not stand on two sides of the split: the later one is set aside.
    The measure is the correlation of their 16 x 16 grey miniatures; null compares nothing."""
    bootstrap_minimum: float | None = None
    """Without a champion: the least value of the metric on the gate samples."""

    @model_validator(mode="after")
    def _no_pseudo_judges(self) -> Gate:
        if "pseudo" in self.trust:
            raise ValueError("trust cannot name pseudo: a model's own answers judge no model")
        return self

    @model_validator(mode="after")
    def _enough_samples(self) -> Gate:
        if self.max_samples is not None and self.max_samples < self.min_samples:
            raise ValueError(
                f"max_samples {self.max_samples} is below min_samples {self.min_samples}: nothing can pass"
            )
        return self

    @model_validator(mode="after")
    def _enough_resamples(self) -> Gate:
        least = math.ceil(1 / (1 - self.confidence) - 1e-6)
        if self.resamples < least:
            raise ValueError(f"a confidence of {self.confidence} needs resamples of at least {least}")
        return self
