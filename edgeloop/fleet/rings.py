"""Which node is in which ring: one YAML per fleet. A service says in which order they get a release."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edgeloop.errors import BadInput

Ring = Annotated[int, Field(ge=0)]


class MalformedFleet(BadInput):
    """A fleet YAML cannot be used; the message names the file and the field."""


class FleetPlan(BaseModel):
    """One fleet YAML."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: Literal[1]
    name: str
    rings: dict[Ring, list[str]]
    """Names of nodes by ring."""
    otherwise: Ring
    """Ring of every node that is not named."""

    def ring_of(self, node: str) -> int:
        """The ring that ``node`` is in."""
        return next((ring for ring, nodes in self.rings.items() if node in nodes), self.otherwise)


def load_fleet(path: Path) -> FleetPlan:
    """Read a fleet YAML.

    Raises:
        MalformedFleet: it cannot be read, does not parse, or names a node in two rings.
    """
    try:
        plan = FleetPlan.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise MalformedFleet(
            f"fleet {path} cannot be read ({error.strerror}): add it or choose another --fleet"
        ) from error
    except yaml.YAMLError as error:
        raise MalformedFleet(f"fleet {path} is not YAML ({' '.join(str(error).split())[:200]}): mend it") from error
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"])) or "fleet"
        raise MalformedFleet(f"fleet {path}: field {field}: {first['msg']}: mend it") from error
    named = [node for nodes in plan.rings.values() for node in nodes]
    twice = sorted({node for node in named if named.count(node) > 1})
    if twice:
        raise MalformedFleet(f"fleet {path}: {', '.join(twice)} is in two rings: name each node once")
    return plan
