"""What of a service's samples may be asked about, and what is known of them: the tables as the queue wants them.

Apart from the queue, which knows no store. Judges' samples are audit samples only; nobody is asked about what cannot
be shown, was refused by validation, or has an answer, unless a second one is wanted.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeloop.clients.objects import ObjectStore
from edgeloop.errors import BadInput
from edgeloop.learning.features import KnownSpace, brought_features, load_cache
from edgeloop.learning.labels.answers import all_labels
from edgeloop.learning.labels.picks import margin_doubts
from edgeloop.learning.labels.queue import Purpose, Request, Shares, Waiting, make_queue, wants_two
from edgeloop.samples.inputs import input_digest
from edgeloop.samples.payloads import UndecodablePayload, decode_features
from edgeloop.samples.records import LABEL_STRENGTH, Label
from edgeloop.samples.service import Service
from edgeloop.samples.splits import split_of
from edgeloop.samples.table import Tables, not_empty, one_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Vectors that are looked at, of what waits and of what is labelled: more are drawn at random.
MOST_VECTORS = 5000
#: Typical samples are asked for below this many labels per class (or ten times as many for a number).
FEW_PER_CLASS = 10


class NothingToAsk(BadInput):
    """No sample can be asked about; the message says why."""


@dataclass
class Found:
    """What the tables say may be asked."""

    learn: list[str] = field(default_factory=list)
    judge: list[str] = field(default_factory=list)
    second: dict[str, Purpose] = field(default_factory=dict)
    labelled: dict[str, str] = field(default_factory=dict)
    """Pool samples with the label that counts."""
    confidences: dict[str, float] = field(default_factory=dict)
    why_not: Counter[str] = field(default_factory=Counter)
    """Samples that are not asked about, by the reason."""


def build_queue(
    store: ObjectStore,
    tables: Tables,
    service: Service,
    by: str | None,
    count: int,
    seed: int,
    shares: Shares | None = None,
) -> list[Request]:
    """The queue of one person: at most ``count`` requests.

    Args:
        store: has labels that wait for ingest, and computed features.
        tables: of the service.
        service: to label for.
        by: who answers; without a name no second opinions are asked.
        count: budget of answers.
        seed: of all draws.
        shares: of the parts of the budget.

    Raises:
        NothingToAsk: no sample can be asked about.
    """
    shares = shares or Shares()
    found = look(store, tables, service, by, shares.twice)
    requests = make_queue(_waiting(store, tables, service, found, seed), count, seed, shares)
    if not requests:
        raise NothingToAsk(f"nothing to label for {service.name}: {_reasons(found)}")
    return requests


def _reasons(found: Found) -> str:
    if not found.why_not:
        return "it has no samples yet: let nodes send some, or run  edgeloop up"
    reasons = ", ".join(f"{count} {why}" for why, count in sorted(found.why_not.items()))
    return f"of {found.why_not.total()} samples {reasons}: wait for new ones"


def look(store: ObjectStore, tables: Tables, service: Service, by: str | None, twice: float) -> Found:
    """Sort the samples of a service by what may be asked about them."""
    answers: dict[str, list[Label]] = defaultdict(list)
    for one in all_labels(store, tables, service):
        answers[one.sample_id].append(one)
    held = {(r["sample_id"], r["source"], r["at"], r["label"]) for r in tables.read("holds")}
    verdicts = {r["sample_id"]: r["accepted"] for r in tables.read("verdicts", ["sample_id", "accepted"])}
    shown = {r["sample_id"] for r in tables.read("samples", ["sample_id"], where=not_empty("payload"))}
    found = Found()
    for row in tables.read("samples", ["sample_id", "group", "selected_by", "confidence"]):
        name = row["sample_id"]
        labels = [x for x in answers[name] if (x.sample_id, x.source, x.at, x.label) not in held]
        if not verdicts.get(name, False):
            found.why_not["were refused by validation" if name in verdicts else "wait for validation"] += 1
        else:
            _sort(found, row, split_of(row["group"], service.name) == "pool", labels, name in shown, by, twice)
    return found


def _sort(
    found: Found,
    row: Mapping[str, Any],
    in_pool: bool,
    labels: list[Label],
    is_shown: bool,
    by: str | None,
    twice: float,
) -> None:
    name = row["sample_id"]
    purpose: Purpose = "learn" if in_pool else "judge"
    people = {x.by for x in labels if x.source == "human"}
    done = {x.source for x in labels} & ({"human", "device"} if in_pool else {"human"})
    if in_pool and done:
        found.labelled[name] = max(labels, key=lambda x: (LABEL_STRENGTH[x.source], x.at, x.label)).label
    if not is_shown:
        found.why_not["have no raw input to show"] += 1
    elif done:
        if by and len(people) == 1 and by not in people and wants_two(name, twice) and _was_asked(labels):
            found.second[name] = purpose
        else:
            found.why_not["are labelled"] += 1
    elif purpose == "judge" and row["selected_by"] != "audit":
        found.why_not["are kept for judging and were not chosen by the audit"] += 1
    else:
        (found.learn if in_pool else found.judge).append(name)
        if in_pool and row["confidence"] is not None:
            found.confidences[name] = row["confidence"]


def _was_asked(labels: Sequence[Label]) -> bool:
    """Whether a person's label answers a request; labels that came with a data set want no second opinion."""
    return any(x.source == "human" and "asked" in (x.__pydantic_extra__ or {}) for x in labels)


def _waiting(store: ObjectStore, tables: Tables, service: Service, found: Found, seed: int) -> Waiting:
    rng = np.random.default_rng(seed)
    names, known = _some(rng, found.learn), _some(rng, list(found.labelled))
    vectors = _vectors(store, tables, service, [*names, *known]) if names else {}
    known = [n for n in known if n in vectors]
    points = np.stack([vectors[n] for n in known]) if known else np.zeros((0, 0), np.float32)
    enough = FEW_PER_CLASS * len(service.labels or range(10))
    few = len(found.labelled) < enough
    open_names = [n for n in names if n in vectors]
    doubts = {n: 1 - found.confidences[n] for n in open_names if n in found.confidences}
    if service.is_classifier and open_names and not few:
        told = [found.labelled[n] for n in known]
        margins = margin_doubts(points, told, np.stack([vectors[n] for n in open_names]), seed)
        doubts = doubts if margins is None else dict(zip(open_names, margins.tolist(), strict=True))
    return Waiting(
        learn=found.learn,
        judge=found.judge,
        second=found.second,
        vectors={n: vectors[n] for n in open_names},
        doubts=doubts if service.is_classifier else {},
        known=points,
        few=few,
    )


def _some(rng: np.random.Generator, names: Sequence[str]) -> list[str]:
    ordered = sorted(names)
    if len(ordered) <= MOST_VECTORS:
        return ordered
    return [ordered[i] for i in np.sort(rng.choice(len(ordered), MOST_VECTORS, replace=False))]


def _vectors(
    store: ObjectStore, tables: Tables, service: Service, names: Sequence[str]
) -> dict[str, NDArray[np.float32]]:
    """Vectors of the samples that have one: embeddings of length 1, or rows with mean 0 and deviation 1."""
    if service.image is None:
        return _standard(_rows(tables, service, names))
    found = _embeddings(store, tables, names)
    return {n: v / max(float(np.linalg.norm(v)), 1e-12) for n, v in found.items()}


def _rows(tables: Tables, service: Service, names: Sequence[str]) -> dict[str, NDArray[np.float32]]:
    found: dict[str, NDArray[np.float32]] = {}
    for row in tables.read("samples", ["sample_id", "payload"], where=one_of("sample_id", names)):
        try:
            found[row["sample_id"]] = decode_features(row["payload"], service.feature_names)
        except UndecodablePayload:  # the service's features were others when it was accepted
            continue
    return found


def _standard(rows: dict[str, NDArray[np.float32]]) -> dict[str, NDArray[np.float32]]:
    if not rows:
        return {}
    values = np.stack(list(rows.values())).astype(np.float64)
    spread = values.std(axis=0)
    scaled = ((values - values.mean(axis=0)) / np.where(spread > 0, spread, 1.0)).astype(np.float32)
    return dict(zip(rows, scaled, strict=True))


def _embeddings(store: ObjectStore, tables: Tables, names: Sequence[str]) -> dict[str, NDArray[np.float32]]:
    """Features of the backbone that most samples brought some of, computed ones for those that brought none."""
    columns = ["sample_id", "embedding", "backbone_digest"]
    rows = tables.read("samples", columns, where=one_of("sample_id", names))
    spaces = Counter((r["backbone_digest"], len(r["embedding"]) // 2) for r in rows if r["embedding"])
    if not spaces:
        return {}
    space = KnownSpace(*max(spaces, key=lambda s: (spaces[s], str(s))))
    brought = {r["sample_id"]: brought_features(r, space) for r in rows}
    found = {n: v.astype(np.float32) for n, v in brought.items() if v is not None}
    return found | _computed(store, tables, [n for n, v in brought.items() if v is None], space)


def _computed(
    store: ObjectStore, tables: Tables, names: Sequence[str], space: KnownSpace
) -> dict[str, NDArray[np.float32]]:
    cache = load_cache(store, space.digest) if names else {}
    if not cache:
        return {}
    rows = tables.read("samples", ["sample_id", "payload", "extra"], where=one_of("sample_id", names))
    named = {r["sample_id"]: input_digest(r) for r in rows}
    return {n: cache[d].astype(np.float32) for n, d in named.items() if d in cache}
