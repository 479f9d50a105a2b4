"""The policy by which a node chooses what to send, as people write it and as it travels inside a release.

A policy is read where a service's YAML is, long before a node meets it, so what the service's kind cannot use is
refused there, with the field.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, WrapValidator, model_validator
from pydantic.functional_validators import ModelWrapValidatorHandler
from pydantic_core import InitErrorDetails, PydanticCustomError

RuleName = Literal["confidence", "threshold", "margin", "entropy", "cross-entropy", "ibt", "novelty"]
#: Rules that read the probabilities of a classifier.
_OF_CLASSIFIERS = frozenset({"confidence", "threshold", "margin", "entropy", "cross-entropy"})
#: Rules that read what an image model gives: boxes, or the features of a backbone.
_OF_IMAGES = frozenset({"ibt", "novelty"})


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ConfidenceRule(_Strict):
    """What the model is sure of (a high pass, for self-training): the confidence is above ``above``."""

    rule: Literal["confidence"]
    above: float = Field(ge=0, lt=1)


class ThresholdRule(_Strict):
    """What the model is unsure of: the confidence is below ``below``."""

    rule: Literal["threshold"]
    below: float = Field(ge=0, le=1)


class MarginRule(_Strict):
    """The two best labels are close: the difference of their probabilities is below ``below``."""

    rule: Literal["margin"]
    below: float = Field(ge=0, le=1)


class EntropyRule(_Strict):
    """The probabilities are spread: their entropy over log K, in [0, 1] for K labels, is above ``above``."""

    rule: Literal["entropy"]
    above: float = Field(ge=0, lt=1)


class CrossEntropyRule(_Strict):
    """KubeEdge Sedna's ``CrossEntropy`` with Sedna's number: ``1 + sum(p ln p) / ln K`` is below ``below``.

    That score is one less the entropy of the rule ``entropy``; 0.5 with two labels means a confidence under 0.890.
    Source: sedna, lib/sedna/algorithms/hard_example_mining, class CrossEntropyFilter.
    """

    rule: Literal["cross-entropy"]
    below: float = Field(default=0.5, ge=0, le=1)


class IbtRule(_Strict):
    """KubeEdge Sedna's image/box thresholds for detectors, with Sedna's numbers.

    Holds where the share of boxes with a confidence of at most ``box`` is at least ``1 - image``. Nothing detected
    counts as hard, where Sedna calls it easy. Source: sedna, as above, class IBTFilter.
    """

    rule: Literal["ibt"]
    image: float = Field(default=0.5, gt=0, le=1)
    box: float = Field(default=0.5, ge=0, le=1)


class NoveltyRule(_Strict):
    """Unlike what was captured: the cosine distance to the nearest of ``size`` centres is above ``above``."""

    rule: Literal["novelty"]
    above: float = Field(ge=0, lt=2)
    size: int = Field(default=64, ge=2, le=1024)
    """Centres kept of all captured samples."""


def _relocated(error: ValidationError, skip: int) -> ValidationError:
    """The same faults without the first ``skip`` steps of their paths, where pydantic names the kind of a union."""
    lines: list[InitErrorDetails] = [
        {
            "type": PydanticCustomError("value_error", "{said}", {"said": one["msg"].removeprefix("Value error, ")})
            if one["type"] in {"value_error", "assertion_error"}
            else one["type"],
            "loc": one["loc"][skip:] if len(one["loc"]) > skip else one["loc"][:0],
            "input": one["input"],
            "ctx": one.get("ctx", {}),
        }
        for one in error.errors()
    ]
    return ValidationError.from_exception_data(error.title, lines)


def _untagged(value: Any, handler: ModelWrapValidatorHandler[Any]) -> Any:
    try:
        return handler(value)
    except ValidationError as error:
        is_tagless = any(one["type"].startswith("union_tag") for one in error.errors())
        raise _relocated(error, 0 if is_tagless else 1) from error


Rule = Annotated[
    Annotated[
        ConfidenceRule | ThresholdRule | MarginRule | EntropyRule | CrossEntropyRule | IbtRule | NoveltyRule,
        Field(discriminator="rule"),
    ],
    WrapValidator(_untagged),
]


class Validity(_Strict):
    """What is not an input at all; each test is off unless it is given."""

    black_below: float | None = Field(default=None, gt=0, le=255)
    """Drop images whose mean luma, 0 to 255, is under this."""
    blur_below: float | None = Field(default=None, gt=0)
    """Drop images whose Laplacian, over the luma of the image as the model sees it, has a variance under this."""
    smallest_side: int | None = Field(default=None, ge=1)
    """Drop images whose shorter side, as they were sent, has fewer pixels than this."""
    out_of_range: Literal["keep", "drop"] = "keep"
    """``drop`` feature rows with a value outside ``min`` and ``max`` of its feature."""


class Duplicates(_Strict):
    """Drop what is nearly the same as something captured lately."""

    by: Literal["embedding", "dhash"]
    within: float = Field(ge=0, le=64)
    """Cosine distance of embeddings (at most 2), or differing bits of a 64-bit difference hash."""
    remember: int = Field(default=1000, ge=1, le=10_000)
    """Captured samples to compare with."""

    @model_validator(mode="after")
    def _within_fits(self) -> Duplicates:
        if self.by == "embedding" and self.within > 2:
            raise ValueError(f"within is {self.within:g}, a cosine distance is at most 2")
        if self.by == "dhash" and self.within != int(self.within):
            raise ValueError(f"within is {self.within:g}, of dhash it is a whole number of bits")
        return self


class Selection(_Strict):
    """Which samples are worth sending: a uniform audit share drawn before all else, and what any rule picks."""

    audit: float = Field(default=0.05, gt=0, le=1)
    """Share of all inputs sent whatever else is said here."""
    confidence_below: float | None = Field(default=None, ge=0, le=1)
    """Older spelling of the rule ``threshold``; it stands before the list."""
    informative: tuple[Rule, ...] = ()
    """Rules; any one that holds selects, and the first that holds gives its name."""
    validity: Validity = Validity()
    duplicates: Duplicates | None = None
    bytes_per_hour: int | None = Field(default=None, ge=1024)
    """Most bytes kept in any hour, the most valuable first; the audit share is the last to starve."""
    payload: Literal["raw", "embedding", "both"] = "both"
    """What of a sample leaves the node."""

    @model_validator(mode="after")
    def _each_rule_once(self) -> Selection:
        names = [one.rule for one in self.rules]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"informative names the rule {', '.join(twice)} twice")
        return self

    @property
    def rules(self) -> tuple[Rule, ...]:
        """The rules in order, ``confidence_below`` among them."""
        if self.confidence_below is None:
            return self.informative
        return (ThresholdRule(rule="threshold", below=self.confidence_below), *self.informative)

    def check_kind(self, kind: str) -> Selection:
        """This policy, if a service of ``kind`` can use all of it.

        Raises:
            ValidationError: with the path of each field that such a service cannot use.
        """
        faults = list(self._misfits(kind))
        if not faults:
            return self
        lines: list[InitErrorDetails] = [
            {"type": PydanticCustomError("value_error", "{said}", {"said": said}), "loc": path, "input": given}
            for path, given, said in faults
        ]
        raise ValidationError.from_exception_data("Selection", lines)

    def _misfits(self, kind: str) -> Iterator[tuple[tuple[int | str, ...], object, str]]:
        """Path, value and fault of what does not fit."""
        is_image = kind == "image-classifier"
        if kind == "tabular-regressor" and self.confidence_below is not None:
            yield ("confidence_below",), self.confidence_below, f"a {kind} has no confidence"
        for number, one in enumerate(self.informative):
            why = _why_not(one.rule, kind)
            if why:
                yield ("informative", number, "rule"), one.rule, f"the rule {one.rule} needs {why}; a {kind} has none"
        for name in ("black_below", "blur_below", "smallest_side"):
            if not is_image and getattr(self.validity, name) is not None:
                yield ("validity", name), getattr(self.validity, name), f"a {kind} takes no images"
        if is_image and self.validity.out_of_range == "drop":
            yield ("validity", "out_of_range"), "drop", f"an {kind} takes no features"
        if not is_image and self.duplicates is not None:
            yield ("duplicates", "by"), self.duplicates.by, f"duplicates are found on images, a {kind} takes none"
        if not is_image and self.payload == "embedding":
            yield ("payload",), self.payload, f"a {kind} has no embedding to send instead"


def _why_not(rule: str, kind: str) -> str | None:
    if rule in _OF_CLASSIFIERS and kind == "tabular-regressor":
        return "probabilities"
    if rule in _OF_IMAGES and kind != "image-classifier":
        return "boxes" if rule == "ibt" else "an embedding"
    return None
