"""Nodes that are in another ring than their node.yaml says: one signed record for each fleet."""

from __future__ import annotations

import json
from typing import Annotated

from pydantic import Field, ValidationError

from edgeloop.errors import BadInput
from edgeloop.samples.records import Record, hexdigest
from edgeloop.samples.service import Name

#: The fleet of nodes whose node.yaml names none.
DEFAULT = "default"


class MalformedMoves(BadInput):
    """Bytes that should say which nodes moved do not."""


class Moves(Record):
    """The channel record of a fleet's moved nodes."""

    fleet: Name
    rings: dict[str, Annotated[int, Field(ge=0)]] = Field(default_factory=dict)
    """Ring by name of the node; a node that is not here is in the ring of its node.yaml."""


def moves_target(fleet: str) -> str:
    """Target path of the record of ``fleet``, signed by ``rings``."""
    return f"fleets/{fleet}/rings.json"


def moved_fleet(target: str) -> str | None:
    """The fleet whose record is at this target path; None when it is another path."""
    match target.split("/"):
        case ["fleets", fleet, "rings.json"]:
            return fleet
    return None


def moves_object(fleet: str, name: str) -> str:
    """Object key of the record of ``fleet`` with the digest ``name``; its content never changes."""
    return f"channel/targets/fleets/{fleet}/{hexdigest(name)}.rings.json"


def parse_moves(data: bytes, key: str) -> Moves:
    """Read a record.

    Raises:
        MalformedMoves: it does not parse.
    """
    try:
        return Moves.model_validate(json.loads(data))
    except (ValueError, ValidationError) as error:
        raise MalformedMoves(f"record {key} does not parse ({error!s:.200}): move a node again") from error
