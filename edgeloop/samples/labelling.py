"""What a service asks of people's time, and whether a model may label for itself: budgets, shares, pseudo-labels."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Doubt = Literal["margin", "entropy"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Shares(_Strict):
    """How a queue is divided; what one part cannot use goes to the others."""

    judge: float = Field(default=0.4, ge=0, le=1)
    """Of the queue, for judging."""
    random: float = Field(default=0.2, ge=0, le=1)
    """Of what is asked for learning, at random; at least one."""
    second: float = Field(default=0.25, ge=0, le=1)
    """Most of the queue that goes to what others have answered."""
    twice: float = Field(default=0.1, ge=0, le=1)
    """Of all requests, those that two people are to answer."""


class Pseudo(_Strict):
    """Labels that the champion gives to pool samples nobody has labelled; they are lessons and judge nothing."""

    enabled: bool = False
    share: float = Field(default=0.3, ge=0, le=0.9)
    """Most of a lesson that pseudo-labels may be."""
    confidence: float = Field(default=0.95, gt=0.5, le=1)
    """The champion's least confidence in one."""
    neighbours: int = Field(default=3, ge=1, le=100)
    """The nearest labelled samples, all of which must have the label that the champion gives."""
    weight: float = Field(default=0.3, gt=0, lt=1)
    """What one counts in the fit; a sample that was labelled counts 1."""
    alpha: float = Field(default=0.05, gt=0, le=0.5)
    """How rarely they are switched off for a drop on the audit slice that is none, over all looks."""


class Labelling(_Strict):
    """What is asked of people, and what a model may label for itself."""

    count: int = Field(default=20, ge=1, le=100_000)
    """Length of a queue where nobody says otherwise."""
    per_round: int | None = Field(default=None, ge=1)
    """Most answers that are asked for between two decisions of the gate; None is no limit."""
    per_day: int | None = Field(default=None, ge=1)
    """Most answers that are asked for in one day of UTC; None is no limit."""
    few_per_class: int = Field(default=10, ge=0)
    """With fewer labels per class in the pool, typical samples are asked for, then uncertain ones. A number counts as
    ten classes."""
    doubt: Doubt = "margin"
    """What of a classifier's answer says how unsure it is: the margin of the two best labels, or the entropy."""
    shares: Shares = Shares()
    pseudo: Pseudo = Pseudo()

    def check_kind(self, kind: str) -> None:
        """Raise ValueError where the kind of service cannot do what is asked here."""
        if self.pseudo.enabled and kind == "tabular-regressor":
            raise ValueError(f"labelling.pseudo needs a confidence, which a {kind} has not: leave it disabled")
