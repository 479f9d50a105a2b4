"""Real inputs for making and judging variants: of the pool alone, and never the same for both.

A group is for calibration or for judging for ever, by a hash of its name, as it is for pool, gate or test: a backbone
that was calibrated long ago is judged on none of what it saw.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from edgeloop.errors import EdgeloopError
from edgeloop.samples.members import Members
from edgeloop.samples.splits import split_of
from edgeloop.samples.table import Tables, one_of

Half = Literal["calibration", "judging"]
#: Inputs of each half that are used at most, and the fewest that judge a model that was converted.
MOST, LEAST = 200, 10


class NoExamples(EdgeloopError):
    """There are too few raw inputs to calibrate or to judge a variant."""


@dataclass(frozen=True)
class Examples:
    """Payloads of pool samples."""

    calibration: list[bytes]
    judging: list[bytes]

    def check(self, service: str, calibrates: bool) -> None:
        """Raise NoExamples when a model that is converted could not be judged, or not be calibrated."""
        halves = {"judge": self.judging} | ({"calibrate": self.calibration} if calibrates else {})
        for what, found in halves.items():
            if len(found) < LEAST:
                raise NoExamples(
                    f"the pool of {service} has {len(found)} raw inputs to {what} a variant with, {LEAST} are needed:"
                    f" collect more, or ask for precision: as-trained"
                )


def half_of(group: str, service: str) -> Half:
    """What a group's inputs are used for."""
    bit = hashlib.sha256(f"variants\n{service}\n{group}".encode()).digest()[0] & 1
    return "judging" if bit else "calibration"


def examples(tables: Tables, service: str, members: Members, most: int = MOST) -> Examples:
    """Raw inputs of pool samples of a dataset version, always the same ones, spread evenly over the pool.

    The split is worked out again from the group: a list of members that says otherwise is not believed.
    """
    pool = members.of("pool")
    pool = pool.take(np.argsort(pool.ranks(), kind="stable"))
    halves: dict[Half, list[str]] = {"calibration": [], "judging": []}
    for name, group in zip(pool.ids, pool.column("group"), strict=True):
        if split_of(group or name, service) == "pool":
            halves[half_of(group or name, service)].append(name)
    return Examples(*(_payloads(tables, halves[half], most) for half in ("calibration", "judging")))


def _payloads(tables: Tables, ids: Sequence[str], most: int) -> list[bytes]:
    """Payloads of the first ``most`` of these samples that have one."""
    found: list[bytes] = []
    start = 0
    while start < len(ids) and len(found) < most:
        some = ids[start : start + most]
        rows = tables.read("samples", ["sample_id", "payload"], where=one_of("sample_id", some))
        payloads = {r["sample_id"]: r["payload"] for r in rows}
        found += [payloads[name] for name in some if payloads.get(name)]
        start += most
    return found[:most]
