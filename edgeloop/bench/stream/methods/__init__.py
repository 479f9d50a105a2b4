"""The policies that are compared, by name, in the order of the table."""

from __future__ import annotations

from edgeloop.bench.stream.methods.baselines import ExperienceReplay, FineTuneNew, Frozen, Joint, Random, Reset
from edgeloop.bench.stream.methods.closed import NearestClassMean, NearestNeighbours, RanPac, StreamingLda
from edgeloop.bench.stream.methods.ours import Ours
from edgeloop.bench.stream.methods.sedna import Sedna, SednaEager, SednaRandom
from edgeloop.bench.stream.methods.selftrain import AnchoredSelfTraining, SelfTraining
from edgeloop.bench.stream.policy import Method
from edgeloop.errors import BadInput

_ALL: tuple[type[Method], ...] = (
    Frozen, FineTuneNew, Sedna, SednaRandom, SednaEager, ExperienceReplay, SelfTraining, AnchoredSelfTraining,
    Random, Reset, NearestClassMean, StreamingLda, RanPac, NearestNeighbours, Ours, Joint,
)  # fmt: skip
METHODS: dict[str, type[Method]] = {method.name: method for method in _ALL}


class UnknownMethod(BadInput):
    """No method of this name is compared."""


def find_methods(names: list[str]) -> list[type[Method]]:
    """The methods of these names, all of them for none; frozen and joint, the two ends of the scale, are always in.

    Raises:
        UnknownMethod: there is none of a name.
    """
    strange = [name for name in names if name not in METHODS]
    if strange:
        raise UnknownMethod(f"unknown method {strange[0]!r}; known: {', '.join(METHODS)}: choose among them")
    wanted = {*(names or METHODS), Frozen.name, Joint.name}
    return [method for name, method in METHODS.items() if name in wanted]
