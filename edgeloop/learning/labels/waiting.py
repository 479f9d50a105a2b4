"""What of a service's samples may be asked about, and what is known of them: the tables as the queue wants them.

Apart from the queue, which knows no store. Judges' samples are audit samples only; nobody is asked about what cannot
be shown, was refused by validation, or has an answer, unless another one is wanted.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeloop.clients.objects import ObjectStore
from edgeloop.errors import BadInput
from edgeloop.learning.labels.answers import all_labels
from edgeloop.learning.labels.budget import left_to_ask
from edgeloop.learning.labels.conflicts import claims_of, disputed, disputed_twins
from edgeloop.learning.labels.doubts import champion_probabilities, doubts_of, fresh_probabilities, number_doubts
from edgeloop.learning.labels.queue import Purpose, Request, Waiting, make_queue, wants_two
from edgeloop.learning.labels.vectors import Say, Vectors, vectors_of
from edgeloop.samples.labelling import Shares
from edgeloop.samples.records import LABEL_STRENGTH, Label, now
from edgeloop.samples.service import Service
from edgeloop.samples.splits import split_of
from edgeloop.samples.table import Tables, not_empty

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Samples whose vectors are looked at, of what waits and of what is labelled: of more, some are drawn at random.
MOST_VECTORS = 5000
#: Labelled images that are compared with each other, the newest labels first.
MOST_TWINS = 5000
_NUMBER_AS_CLASSES = 10


class NothingToAsk(BadInput):
    """No sample can be asked about; the message says why."""


@dataclass(frozen=True)
class Asker:
    """Who asks, and on what grounds."""

    by: str | None
    """Who answers; without a name no second opinions are asked."""
    shares: Shares
    champion: Mapping[str, str] | None = None
    """Blob digests of the model whose doubts count, by role."""
    disputed: frozenset[str] = frozenset()
    """Samples that contradict an equal input."""


@dataclass
class Found:
    """What the tables say may be asked."""

    learn: list[str] = field(default_factory=list)
    judge: list[str] = field(default_factory=list)
    second: dict[str, Purpose] = field(default_factory=dict)
    disputed: dict[str, Purpose] = field(default_factory=dict)
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
    *,
    champion: Mapping[str, str] | None = None,
    since: datetime | None = None,
    at: datetime | None = None,
    say: Say = lambda _: None,
) -> list[Request]:
    """The queue of one person: at most ``count`` requests, and no more than the service's budgets leave.

    Args:
        store: has labels that wait for ingest, and computed features.
        tables: of the service.
        service: to label for.
        by: who answers; without a name no second opinions are asked.
        count: most requests.
        seed: of all draws.
        shares: of the parts of the queue; the service's own if None.
        champion: blob digests by role of the model whose doubts count.
        since: the last decision of the gate, for the budget of a round.
        at: the present.
        say: told how far the computing of features is.

    Raises:
        NothingToAsk: no sample can be asked about.
        BudgetSpent: no more answers are to be asked for now.
    """
    labels = standing(tables, all_labels(store, tables, service))
    left = left_to_ask(labels, service.labelling, since, at or now())
    twins = _disputed_twins(store, tables, service, labels)
    asker = Asker(by, shares or service.labelling.shares, champion, frozenset(twins))
    found = sort_samples(tables, service, labels, asker)
    waiting = _waiting(store, tables, service, found, asker, seed, say)
    requests = make_queue(waiting, count if left is None else min(count, left), seed, asker.shares)
    if not requests:
        raise NothingToAsk(f"nothing to label for {service.name}: {_reasons(found)}")
    return requests


def standing(tables: Tables, labels: Collection[Label]) -> list[Label]:
    """The labels that are not held."""
    held = {(r["sample_id"], r["source"], r["at"], r["label"]) for r in tables.read("holds")}
    return [x for x in labels if (x.sample_id, x.source, x.at, x.label) not in held]


def _reasons(found: Found) -> str:
    if not found.why_not:
        return "it has no samples yet: let nodes send some, or run  edgeloop up"
    reasons = ", ".join(f"{count} {why}" for why, count in sorted(found.why_not.items()))
    return f"of {found.why_not.total()} samples {reasons}: wait for new ones"


def _disputed_twins(store: ObjectStore, tables: Tables, service: Service, labels: Sequence[Label]) -> set[str]:
    """Images that are labelled otherwise under another name; rows may have several right answers."""
    if service.image is None:
        return set()
    ordered = sorted(labels, key=lambda x: (LABEL_STRENGTH[x.source], x.at, x.label))
    best = {x.sample_id: x for x in ordered}
    newest = sorted(best.values(), key=lambda x: (x.at, x.sample_id), reverse=True)[:MOST_TWINS]
    return disputed_twins(claims_of(store, tables, {x.sample_id: (x.label, x.source) for x in newest}))


def sort_samples(tables: Tables, service: Service, labels: Sequence[Label], asker: Asker) -> Found:
    """Sort the samples of a service by what may be asked about them."""
    answers: dict[str, list[Label]] = defaultdict(list)
    for one in labels:
        answers[one.sample_id].append(one)
    verdicts = {r["sample_id"]: r["accepted"] for r in tables.read("verdicts", ["sample_id", "accepted"])}
    shown = {r["sample_id"] for r in tables.read("samples", ["sample_id"], where=not_empty("payload"))}
    found = Found()
    for row in tables.read("samples", ["sample_id", "group", "selected_by", "confidence"]):
        name = row["sample_id"]
        if not verdicts.get(name, False):
            found.why_not["were refused by validation" if name in verdicts else "wait for validation"] += 1
        else:
            in_pool = split_of(row["group"], service.name) == "pool"
            _sort(found, row, in_pool, answers[name], name in shown, asker, service.is_classifier)
    return found


def _sort(
    found: Found,
    row: Mapping[str, Any],
    in_pool: bool,
    labels: list[Label],
    is_shown: bool,
    asker: Asker,
    is_classifier: bool,
) -> None:
    name = row["sample_id"]
    purpose: Purpose = "learn" if in_pool else "judge"
    done = {x.source for x in labels} & ({"human", "device"} if in_pool else {"human"})
    if in_pool and done:
        found.labelled[name] = max(labels, key=lambda x: (LABEL_STRENGTH[x.source], x.at, x.label)).label
    if not is_shown:
        found.why_not["have no raw input to show"] += 1
    elif done:
        again = _asked_again(name, labels, asker, is_classifier)
        if again is None:
            found.why_not["are labelled"] += 1
        else:
            (found.disputed if again == "disputed" else found.second)[name] = purpose
    elif purpose == "judge" and row["selected_by"] != "audit":
        found.why_not["are kept for judging and were not chosen by the audit"] += 1
    else:
        (found.learn if in_pool else found.judge).append(name)
        if in_pool and row["confidence"] is not None:
            found.confidences[name] = row["confidence"]


def _asked_again(name: str, labels: Sequence[Label], asker: Asker, is_classifier: bool) -> str | None:
    """Why somebody else is asked about a sample that has an answer; None where nobody is.

    A third person where two differ, a second where an equal input has another label: no more, or a matter of taste
    would be asked for ever.
    """
    people = {x.by for x in labels if x.source == "human"}
    if not asker.by or asker.by in people:
        return None
    if is_classifier and (disputed(labels) or (name in asker.disputed and len(people) < 2)):
        return "disputed"
    wanted = len(people) == 1 and wants_two(name, asker.shares.twice) and _was_asked(labels)
    return "second" if wanted else None


def _was_asked(labels: Sequence[Label]) -> bool:
    """Whether a person's label answers a request; labels that came with a data set want no second opinion."""
    return any(x.source == "human" and "asked" in (x.__pydantic_extra__ or {}) for x in labels)


def _waiting(
    store: ObjectStore, tables: Tables, service: Service, found: Found, asker: Asker, seed: int, say: Say
) -> Waiting:
    rng = np.random.default_rng(seed)
    names, known = _some(rng, found.learn), _some(rng, list(found.labelled))
    vectors = vectors_of(store, tables, service, [*names, *known], asker.champion, say) if names else Vectors({})
    points = vectors.comparable()
    names, known = [n for n in names if n in points], [n for n in known if n in points]
    few = len(found.labelled) < service.labelling.few_per_class * len(service.labels or range(_NUMBER_AS_CLASSES))
    doubts = {} if few else _doubts(store, service, found, asker, vectors, points, names, known, seed)
    return Waiting(
        learn=found.learn,
        judge=found.judge,
        second=found.second,
        disputed=found.disputed,
        vectors={n: points[n] for n in names},
        doubts=doubts,
        known=np.stack([points[n] for n in known]) if known else np.zeros((0, 0), np.float32),
        few=few,
    )


def _doubts(
    store: ObjectStore,
    service: Service,
    found: Found,
    asker: Asker,
    vectors: Vectors,
    points: Mapping[str, NDArray[np.float32]],
    names: Sequence[str],
    known: Sequence[str],
    seed: int,
) -> dict[str, float]:
    """Doubts by sample id: the champion's, else a quick fit's, else those that came with the samples."""
    if not names:
        return {}
    at = np.stack([points[n] for n in names])
    told, there = [found.labelled[n] for n in known], np.stack([points[n] for n in known]) if known else at[:0]
    if not service.is_classifier:
        spread = number_doubts(service, there, told, at, seed)
        return {} if spread is None else dict(zip(names, spread.tolist(), strict=True))
    sure = champion_probabilities(store, service, asker.champion, vectors, names)
    sure = fresh_probabilities(there, told, at, seed) if sure is None else sure
    if sure is None:
        return {n: 1 - found.confidences[n] for n in names if n in found.confidences}
    return dict(zip(names, doubts_of(sure, service.labelling.doubt).tolist(), strict=True))


def _some(rng: np.random.Generator, names: Sequence[str]) -> list[str]:
    ordered = sorted(names)
    if len(ordered) <= MOST_VECTORS:
        return ordered
    return [ordered[i] for i in np.sort(rng.choice(len(ordered), MOST_VECTORS, replace=False))]
