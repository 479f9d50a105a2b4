"""A hardware profile: what a kind of node runs, how precisely, and within which memory and latency."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edgeloop.errors import BadInput

Runtime = Literal["litert", "onnx", "savedmodel", "edgetpu", "tensorrt"]
Precision = Literal["as-trained", "float32", "float16", "int8-dynamic", "int8"]
Kind = Literal["image-classifier", "tabular-regressor", "tabular-classifier"]


class UnknownProfile(BadInput):
    """No YAML describes this hardware profile."""


class MalformedProfile(BadInput):
    """A profile YAML cannot be used; the message names file and field."""


class Profile(BaseModel):
    """One profile YAML, ``profiles/NAME.yaml``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: Literal[1]
    name: Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")]
    description: str
    arch: Literal["amd64", "arm64"]
    runtime: dict[Kind, Runtime]
    """By kind of service; a kind that is not named cannot run there."""
    precision: Precision = "as-trained"
    """Of image backbones; tabular models are always float32."""
    compiler: str | None = None
    """Program that the runtime's compiler is; asked for only when a variant is made."""
    cores: int = Field(ge=1, le=1024)
    memory_mb: int = Field(ge=16)
    """What the node process may take."""
    latency_ms_p99: float = Field(gt=0)
    """Budget of one answer."""
    slowdown: float = Field(default=1.0, gt=0)
    """Time of an answer there over its time on the machine that measures."""
    min_agreement: float = Field(default=0.99, ge=0, le=1)
    """Share of inputs on which a variant must answer as the trained model does."""
    max_bytes: int | None = Field(default=None, ge=1)
    """Largest sum of a variant's layers."""


def load_profile(name: str, folders: list[Path]) -> Profile:
    """Find ``NAME.yaml`` in the first of ``folders`` that has it and read it.

    Raises:
        UnknownProfile: no folder has it; the message lists the profiles there are.
        MalformedProfile: it does not say what it must, or names another profile.
    """
    for folder in folders:
        path = folder / f"{name}.yaml"
        if path.is_file():
            return _read(path)
    known = ", ".join(list_profiles(folders)) or "none"
    raise UnknownProfile(f"unknown profile {name!r}; known: {known}: add {folders[-1] / (name + '.yaml')}")


def list_profiles(folders: list[Path]) -> list[str]:
    """Names of the profiles described in ``folders``, sorted."""
    return sorted({p.stem for folder in folders if folder.is_dir() for p in folder.glob("*.yaml")})


def _read(path: Path) -> Profile:
    try:
        profile = Profile.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError) as error:
        raise MalformedProfile(f"profile {path} cannot be read ({error}): save it as UTF-8") from error
    except yaml.YAMLError as error:
        raise MalformedProfile(f"profile {path} is not YAML ({' '.join(str(error).split())[:200]}): mend it") from error
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"])) or "profile"
        raise MalformedProfile(f"profile {path}: field {field}: {first['msg']}: mend it") from error
    if profile.name != path.stem:
        raise MalformedProfile(f"profile {path}: field name: is {profile.name!r}, the file says {path.stem!r}")
    return profile
