"""A service: an ML function offered at the edge, described by one YAML file and no Python.

The YAML is for people; what a node needs of it (:class:`NodeConfig`) travels inside the release, so that a node
knows nothing but its ring and the object store.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator, model_validator

from edgeloop.errors import BadInput
from edgeloop.samples.delivery import Delivery as Delivery  # noqa: PLC0414 (others know it from here)
from edgeloop.samples.judging import Gate as Gate  # noqa: PLC0414 (others know it from here)
from edgeloop.samples.labelling import Labelling as Labelling  # noqa: PLC0414 (others know it from here)
from edgeloop.samples.selection import Selection as Selection  # noqa: PLC0414 (others know it from here)
from edgeloop.samples.strategy import Strategy as Strategy  # noqa: PLC0414 (others know it from here)
from edgeloop.samples.training import Full as Full  # noqa: PLC0414 (others know it from here)
from edgeloop.samples.training import Head as Head  # noqa: PLC0414 (others know it from here)
from edgeloop.samples.training import Trainer as Trainer  # noqa: PLC0414 (others know it from here)

SERVICE_VERSION = 1
Name = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")]


class UnknownService(BadInput):
    """No YAML describes this service."""


class MalformedService(BadInput):
    """A service YAML does not say what it must; the message names file, line and field."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class ImageInput(_Strict):
    """Images, resized to the square the model takes."""

    size: int = Field(ge=16, le=1024)
    """Side of the square in pixels."""
    max_bytes: int = Field(default=8_000_000, ge=1024)
    """Largest payload accepted, in bytes."""


class Feature(_Strict):
    """One column of a feature row, with the range in which a value is plausible."""

    name: str
    min: float | None = None
    max: float | None = None


class Expectation(_Strict):
    """One Great Expectations expectation on the frame of a batch."""

    type: str
    """Class name in snake case, e.g. ``expect_column_values_to_be_between``."""
    kwargs: dict[str, Any] = Field(default_factory=dict)
    severity: Literal["quarantine", "warning"] = "quarantine"
    """``quarantine`` sets the failing rows aside; ``warning`` is only reported."""


class Service(_Strict):
    """One service YAML."""

    version: Literal[1]
    name: Name
    kind: Literal["image-classifier", "tabular-regressor", "tabular-classifier"]
    description: str
    image: ImageInput | None = None
    features: list[Feature] | None = None
    labels: list[str] | None = None
    """The closed set of labels of a classifier."""
    target: Feature | None = None
    """Name and plausible range of a regressor's target."""
    data: str | None = None
    """Name of the data set that ``edgeloop demo`` and ``edgeloop data get`` use."""
    trainer: Trainer = Trainer()
    selection: Selection = Selection()
    expectations: list[Expectation] | str = Field(default_factory=list)
    """Expectations, or the name of a suite in data/expectations/."""
    gate: Gate = Gate()
    labelling: Labelling = Labelling()
    rings: list[Annotated[int, Field(ge=0)]] = Field(default_factory=lambda: [0, 1], min_length=1)
    """Rings in the order in which they get a release; a ring that is not named gets none."""
    delivery: Delivery = Delivery()
    rollout: Strategy = Strategy()

    @field_validator("selection")
    @classmethod
    def _selection_fits(cls, selection: Selection, info: ValidationInfo) -> Selection:
        kind = info.data.get("kind")
        return selection.check_kind(kind) if kind else selection

    @model_validator(mode="after")
    def _kind_fits(self) -> Service:
        need = {"image-classifier": ("image", "labels"), "tabular-regressor": ("features", "target")}
        for field in need.get(self.kind, ("features", "labels")):
            if getattr(self, field) is None:
                raise ValueError(f"a service of kind {self.kind} needs the field {field}")
        if self.kind == "image-classifier" and not self.trainer.backbone:
            raise ValueError("an image-classifier needs the field trainer.backbone")
        self.labelling.check_kind(self.kind)
        self._check_trainer()
        self._check_names()
        return self

    def _check_trainer(self) -> None:
        if self.trainer.balanced and not self.is_classifier:
            raise ValueError(f"trainer.balanced is for classifiers, this is a {self.kind}: leave it out")
        if self.trainer.incremental and self.kind == "image-classifier":
            raise ValueError("trainer.incremental is for tabular services: leave it out, a head is refitted in seconds")
        if self.trainer.incremental and self.labelling.pseudo.enabled:
            raise ValueError(
                "trainer.incremental would go on with what pseudo-labels taught even after the audit stopped them:"
                " leave out trainer.incremental or labelling.pseudo.enabled"
            )

    def _check_names(self) -> None:
        labels, names = self.labels or [], self.feature_names
        if self.is_classifier and len(labels) < 2:
            raise ValueError("a classifier needs at least two labels")
        for what, values in (("labels", labels), ("features", names), ("rings", [str(r) for r in self.rings])):
            twice = sorted({v for v in values if values.count(v) > 1})
            if twice:
                raise ValueError(f"{what} names {', '.join(twice)} twice")
        for feature in [*(self.features or []), *([self.target] if self.target else [])]:
            if feature.min is not None and feature.max is not None and feature.min > feature.max:
                raise ValueError(f"{feature.name} has min {feature.min} above max {feature.max}")

    @property
    def is_classifier(self) -> bool:
        """Whether answers are labels rather than numbers."""
        return self.kind != "tabular-regressor"

    @property
    def metric(self) -> str:
        """The metric that the gate compares: ``accuracy`` or ``r2``."""
        return "accuracy" if self.is_classifier else "r2"

    @property
    def feature_names(self) -> list[str]:
        """Names of the feature columns, empty for images."""
        return [f.name for f in self.features or []]

    def label_fault(self, label: str) -> str | None:
        """Why ``label`` cannot be a right answer; None when it can."""
        if self.is_classifier:
            return None if label in (self.labels or []) else f"label {label!r} is not one of {self.labels}"
        try:
            value = float(label)
        except ValueError:
            return f"label {label!r} is not a number"
        low = -math.inf if self.target is None or self.target.min is None else self.target.min
        high = math.inf if self.target is None or self.target.max is None else self.target.max
        if not math.isfinite(value) or not low <= value <= high:
            return f"label {label!r} is not between {low} and {high}"
        return None

    def node_config(self) -> NodeConfig:
        """The part of this service that a node needs."""
        return NodeConfig(
            service=self.name,
            kind=self.kind,
            image=self.image,
            features=self.features,
            labels=self.labels,
            selection=self.selection,
        )


class NodeConfig(BaseModel):
    """What a node must know of a service to answer and select; the ``config`` layer of a release."""

    model_config = ConfigDict(extra="allow", frozen=True, protected_namespaces=())

    service: str
    kind: str
    image: ImageInput | None = None
    features: list[Feature] | None = None
    labels: list[str] | None = None
    selection: Selection = Selection()

    @property
    def feature_names(self) -> list[str]:
        """Names of the feature columns, empty for images."""
        return [f.name for f in self.features or []]


def parse_service(text: str, source: str) -> Service:
    """Read a service YAML.

    Raises:
        MalformedService: with ``source``, the line and the field of the first thing that is wrong.
    """
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        value = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise MalformedService(f"{source}:{line}: not YAML: {error.problem}: mend the line") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise MalformedService(f"{source}:1: not YAML: {' '.join(str(error).split())}: mend the file") from error
    if not isinstance(value, dict):
        raise MalformedService(f"{source}:1: a service is a mapping with version, name and kind: see docs/reference")
    try:
        return Service.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        path = tuple(first["loc"])
        field = ".".join(map(str, path)) or "service"
        given = "" if first["type"] in {"missing", "value_error"} else f" (given: {first['input']!r:.80})"
        message = first["msg"].removeprefix("Value error, ")
        raise MalformedService(
            f"{source}:{line_of(root, path)}: field {field}: {message}{given}: mend it and run again"
        ) from error


def line_of(node: yaml.Node | None, path: tuple[int | str, ...]) -> int:
    """Line of the deepest node on ``path`` that exists (a missing field is on its parent's line)."""
    line = 1
    for step in path:
        if isinstance(node, yaml.MappingNode):
            found = next(((k, v) for k, v in node.value if k.value == str(step)), None)
            if found is None:
                break
            line, node = found[0].start_mark.line + 1, found[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
            node = node.value[step]
            line = node.start_mark.line + 1
        else:
            break
    return line


def load_service(name: str, folders: list[Path]) -> Service:
    """Find ``NAME.yaml`` in the first of ``folders`` that has it and read it.

    Raises:
        UnknownService: no folder has it; the message lists the services there are.
        MalformedService: the file does not say what it must, or names another service.
    """
    for folder in folders:
        path = folder / f"{name}.yaml"
        if path.is_file():
            service = parse_service(_text_of(path), str(path))
            if service.name != name:
                raise MalformedService(f"{path}:1: field name: is {service.name!r}, the file says {name!r}: rename one")
            return service
    known = ", ".join(list_services(folders)) or "none"
    raise UnknownService(f"unknown service {name!r}; known: {known}: add {folders[-1] / (name + '.yaml')}")


def _text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (UnicodeDecodeError, OSError) as error:
        raise MalformedService(f"{path}:1: cannot be read as UTF-8 text ({error}): save it as UTF-8") from error


def list_services(folders: list[Path]) -> list[str]:
    """Names of the services described in ``folders``, sorted."""
    return sorted({p.stem for folder in folders if folder.is_dir() for p in folder.glob("*.yaml")})
