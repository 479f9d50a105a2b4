"""Labels that cannot all be right: people who differ on a sample, and equal inputs with different labels.

What counts is defined, so that no order of arrival decides: of one sample the newest label of the strongest source.
Equal images under different names are one thing seen twice. Where their strongest labels differ, none of them is
learned from until somebody says more; where only weaker ones differ, the weaker are not. Equal rows of a table may
well have different answers (what is measured is not all there is), so they teach as they are.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from pydantic import BaseModel

from edgeloop.clients.objects import ObjectStore
from edgeloop.learning.labels.agreement import Contradiction, agreement
from edgeloop.learning.sample_features import input_digests
from edgeloop.samples.records import LABEL_STRENGTH, Label
from edgeloop.samples.service import Service
from edgeloop.samples.table import Tables

#: Why a sample is not learned from; the key under which such samples are counted.
CONTRADICTORY = "contradictory labels"


@dataclass(frozen=True)
class Claim:
    """The label that counts for a sample, and the input that it is about."""

    sample_id: str
    payload: str
    """Digest of the raw input."""
    label: str
    source: str


class Twins(BaseModel):
    """One input under several names, with labels that cannot all be right."""

    payload: str
    labels: dict[str, str]
    """The label that counts for each sample of it, by sample id."""
    settled: bool
    """Whether the strongest source says one thing only: then only the weaker labels are wrong."""


class Conflicts(BaseModel):
    """All contradictions of a service."""

    service: str
    people: list[Contradiction]
    """Samples that people do not agree on."""
    devices: list[Contradiction]
    """The same of devices, where no person has said what is right."""
    twins: list[Twins]
    """Equal inputs with different labels; classifiers only."""


def wrong_among(claims: Iterable[Claim]) -> set[str]:
    """Names of samples that contradict an equal input of the same or a stronger source, and are not learned from."""
    return {c.sample_id for group in _by_payload(claims).values() for c in _contradicted(group)}


def _by_payload(claims: Iterable[Claim]) -> dict[str, list[Claim]]:
    groups: dict[str, list[Claim]] = defaultdict(list)
    for one in claims:
        groups[one.payload].append(one)
    return groups


def _contradicted(group: Collection[Claim]) -> list[Claim]:
    said = _strongest(group)
    return [c for c in group if len(said) > 1 or c.label not in said]


def _strongest(group: Collection[Claim]) -> set[str]:
    """What the strongest source says of one input."""
    top = max(LABEL_STRENGTH[c.source] for c in group)
    return {c.label for c in group if LABEL_STRENGTH[c.source] == top}


def disputed_twins(claims: Iterable[Claim]) -> set[str]:
    """Names of samples whose input the strongest source gives different labels: more opinions are wanted."""
    groups = _by_payload(claims).values()
    return {c.sample_id for group in groups if len(_strongest(group)) > 1 for c in group}


def disputed(labels: Iterable[Label]) -> bool:
    """Whether just two people have answered one sample, and differ in their newest answers: a third may tell."""
    newest = {x.by: x.label for x in sorted(labels, key=lambda x: (x.at, x.label)) if x.source == "human"}
    return len(newest) == 2 and len(set(newest.values())) == 2


def claims_of(store: ObjectStore, tables: Tables, counting: Mapping[str, tuple[str, str]]) -> list[Claim]:
    """Claims of samples by the label that counts and its source; samples that are not here have none."""
    digests = input_digests(store, tables, sorted(counting))
    return [Claim(name, payload, *counting[name]) for name, payload in sorted(digests.items())]


def find_conflicts(store: ObjectStore, tables: Tables, service: Service, labels: Collection[Label]) -> Conflicts:
    """Everything that contradicts itself among all ``labels`` of a service."""
    numbers = not service.is_classifier
    answered = {x.sample_id for x in labels if x.source == "human"}
    devices = [
        x.model_copy(update={"source": "human"}) for x in labels if x.source == "device" and x.sample_id not in answered
    ]
    return Conflicts(
        service=service.name,
        people=agreement(service.name, labels, numbers).contradictions,
        devices=agreement(service.name, devices, numbers).contradictions,
        twins=[] if numbers else _twins(claims_of(store, tables, _counting(labels))),
    )


def _counting(labels: Iterable[Label]) -> dict[str, tuple[str, str]]:
    """The label that counts for each sample, and its source."""
    ordered = sorted(labels, key=lambda x: (LABEL_STRENGTH[x.source], x.at, x.label))
    return {x.sample_id: (x.label, x.source) for x in ordered}


def _twins(claims: Iterable[Claim]) -> list[Twins]:
    return [
        Twins(
            payload=payload,
            labels={c.sample_id: c.label for c in sorted(group, key=lambda c: c.sample_id)},
            settled=len(_strongest(group)) == 1,
        )
        for payload, group in sorted(_by_payload(claims).items())
        if len({c.label for c in group}) > 1
    ]
