"""Which fault happens when: a pure function of a seed, so that a run that failed can be run again."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, NamedTuple


class Kind(StrEnum):
    """What goes wrong."""

    NODE_KILL = "node-kill"
    TORN_WRITE = "torn-write"
    """The node is killed, and what it was writing is found half-written."""
    BROKER_STOP = "broker-stop"
    BROKER_KILL = "broker-kill"
    LINK_CUT = "link-cut"
    SLOW_LINK = "slow-link"
    STORE_STOP = "store-stop"
    STORE_503 = "store-503"
    STORE_CUT = "store-cut"
    """Connections to the store end in the middle of a body, or after the work and before the answer."""
    BLOB_TRUNCATED = "blob-truncated"
    BLOB_FLIPPED = "blob-flipped"
    WRONG_SIGNATURE = "wrong-signature"
    DISK_FULL = "disk-full"


Place = Literal["node", "broker", "link", "store", "channel", "disk"]


class Nature(NamedTuple):
    """Where a fault strikes, how often it is dealt, its shortest and longest time, and how long the place is left
    alone afterwards, all in seconds."""

    place: Place
    weight: int
    shortest: float
    longest: float
    rest: float = 0.3


# A node that is always starting does nothing else, so it is left alone for longer; the channel likewise.
NATURE: dict[Kind, Nature] = {
    Kind.NODE_KILL: Nature("node", 2, 0.0, 0.6, rest=2.5),
    Kind.TORN_WRITE: Nature("node", 2, 0.0, 0.6, rest=2.5),
    Kind.BROKER_STOP: Nature("broker", 2, 0.2, 1.5),
    Kind.BROKER_KILL: Nature("broker", 1, 0.2, 1.5),
    Kind.LINK_CUT: Nature("link", 2, 0.0, 0.1),
    Kind.SLOW_LINK: Nature("link", 2, 0.5, 2.5),
    Kind.STORE_STOP: Nature("store", 2, 0.5, 2.0),
    Kind.STORE_503: Nature("store", 2, 0.5, 2.5),
    Kind.STORE_CUT: Nature("store", 2, 0.5, 2.0),
    Kind.BLOB_TRUNCATED: Nature("channel", 2, 1.5, 3.0, rest=0.7),
    Kind.BLOB_FLIPPED: Nature("channel", 2, 1.5, 3.0, rest=0.7),
    Kind.WRONG_SIGNATURE: Nature("channel", 2, 1.5, 3.0, rest=0.7),
    Kind.DISK_FULL: Nature("disk", 2, 0.5, 2.5),
}
#: As many faults as one deck holds have every kind among them.
DECK = sum(nature.weight for nature in NATURE.values())
#: Seconds between the beginnings of two faults.
GAP = (0.3, 1.0)


@dataclass(frozen=True)
class Fault:
    """One fault: it begins at ``at`` and is over ``seconds`` later; ``variant`` chooses among its forms."""

    number: int
    at: float
    kind: Kind
    seconds: float
    variant: int

    @property
    def place(self) -> Place:
        """Where it strikes."""
        return NATURE[self.kind].place


@dataclass(frozen=True)
class Step:
    """One thing to do, ``at`` seconds after the start."""

    at: float
    phase: Literal["begin", "end"]
    fault: Fault


def schedule(seed: int, count: int) -> list[Fault]:
    """``count`` faults in order of their beginning. No two strike one place at the same time; places overlap freely.

    The kinds are dealt from shuffled decks, so that each comes as often as its weight says.
    """
    dice = random.Random(seed)
    free: dict[Place, float] = {nature.place: 0.0 for nature in NATURE.values()}
    deck: list[Kind] = []
    faults: list[Fault] = []
    at = 0.0
    for number in range(count):
        deck = deck or _shuffled(dice)
        at += dice.uniform(*GAP)
        kind, at = _deal(deck, free, at)
        deck.remove(kind)
        nature = NATURE[kind]
        seconds = dice.uniform(nature.shortest, nature.longest)
        free[nature.place] = at + seconds + nature.rest
        faults.append(Fault(number, at, kind, seconds, dice.randrange(1 << 16)))
    return faults


def _shuffled(dice: random.Random) -> list[Kind]:
    deck = [kind for kind, nature in NATURE.items() for _ in range(nature.weight)]
    dice.shuffle(deck)
    return deck


def _deal(deck: Sequence[Kind], free: dict[Place, float], at: float) -> tuple[Kind, float]:
    """The first kind whose place is free at ``at``; else the one whose place is free soonest, and when."""
    kind = min(deck, key=lambda k: max(free[NATURE[k].place], at))  # min keeps the order of the deck among equals
    return kind, max(at, free[NATURE[kind].place])


def steps(faults: Sequence[Fault]) -> list[Step]:
    """The beginnings and ends of ``faults`` in the order in which they are due."""
    found = [Step(fault.at, "begin", fault) for fault in faults]
    found += [Step(fault.at + fault.seconds, "end", fault) for fault in faults]
    return sorted(found, key=lambda s: (s.at, s.fault.number, s.phase))
