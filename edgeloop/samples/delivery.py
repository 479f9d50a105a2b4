"""How a service's releases reach nodes before any ring moves: for which hardware, who approves, what is rehearsed."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Approvals(_Strict):
    """Setting the alias ``champion`` is the first approval; a second is a person's word to edgeloop."""

    second: bool = False
    """Whether a rollout waits for the word of somebody else."""
    by: list[str] = Field(default_factory=list)
    """Who may give it; empty for everybody."""


class TwinRules(_Strict):
    """What a release must show on the digital twin."""

    rehearse: bool = True
    """Whether every release is rehearsed before ring 0; one that fails goes no further."""
    required: bool = False
    """Whether one that the twin was not sure of waits for a word."""
    inputs: int = Field(default=200, ge=1, le=10_000)
    """Recent inputs that are replayed."""
    max_errors: float = Field(default=0.0, ge=0, le=1)
    """Share of inputs that may get an error."""
    min_agreement: float = Field(default=0.98, ge=0, le=1)
    """Share of answers that must be those of the trained model."""
    load: bool = True
    """Whether requests rise until the latency budget breaks."""

    @model_validator(mode="after")
    def _can_be_had(self) -> Self:
        if self.required and not self.rehearse:
            raise ValueError("twin.required needs a rehearsal: leave out required, or rehearse: false")
        return self


class Delivery(_Strict):
    """What stands between a champion and ring 0."""

    profiles: list[Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")]] = Field(default_factory=list)
    """Hardware profiles that a release has a variant for; empty for the model as it was trained, on all."""
    approvals: Approvals = Approvals()
    twin: TwinRules = TwinRules()
