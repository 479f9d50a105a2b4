"""What a watch of a champion begins with: the samples of the time when it was judged, and the accuracy it had then."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

import numpy as np

from edgeloop.clients.objects import ObjectStore
from edgeloop.clients.registry import ModelVersion
from edgeloop.learning.drift.accuracy import NoFloor, accuracy_floor
from edgeloop.learning.drift.kept import WatchState
from edgeloop.learning.drift.reading import AUDIT, IMPORTED, Source, Versions, drawn, fresh
from edgeloop.learning.drift.watch import DriftWatch, Window
from edgeloop.learning.rounds import RoundRecord
from edgeloop.samples.dataset import load_dataset
from edgeloop.samples.records import canonical, digest, hexdigest
from edgeloop.samples.service import Service

#: The most often that a champion's watch ever raises a finding without drift, over all quantities, looks and parts.
ALPHA = 0.01
#: Samples of a reference: at least and at most.
FEWEST, MOST = 50, 1000
#: A part of a watch tests about this many samples; then what it keeps has grown enough.
LONGEST = 20_000
#: What the first part spends of alpha; each later one spends this share of what is left.
_SPENT = 0.9


class Reference(NamedTuple):
    """What inputs are compared with."""

    window: Window
    words: str


def begin(
    source: Source, champion: ModelVersion, former: tuple[WatchState, DriftWatch] | None, at: datetime
) -> tuple[WatchState, DriftWatch]:
    """A new watch of a champion; or a new part, where ``former`` is a watch of the same one that tested very many.

    A part goes on with the test of accuracy at its own level: labels are few, and their evidence is not thrown away.

    Raises:
        UnknownDataset: the dataset that the champion learned from is not in the store.
    """
    service = source.service
    last = former[0] if former else None
    number = last.number if last else 0
    same = last if last and is_of(last, champion, service) else None
    tables = same.tables if same else load_dataset(source.store, service.name, champion.dataset).tables
    part = same.part + 1 if same else 0
    alpha = ALPHA * _SPENT * (1 - _SPENT) ** part
    since = _settled(last)
    reference = find_reference(source, tables, since)
    watch = DriftWatch(
        reference.window, alpha, None, service.labels or (), service.trainer.seed + part, quantities=planned(service)
    )
    carried = same.tests.monitors.get("accuracy") if same else None
    if former and carried:
        watch.take_accuracy(former[1])
    else:
        watch_accuracy(source, watch, champion.version)
    state = WatchState(
        number=number,
        service=service.name,
        champion=champion.version,
        dataset=champion.dataset,
        shape=shape_of(service),
        release=same.release if same else None,
        watch=same.watch if same else f"{champion.version}-{number + 1}",
        part=part,
        alpha=alpha,
        began=at,
        at=at,
        began_tables=tables,
        tables=tables,
        reference=reference.words,
        since=since,
        audited=same.audited if same and carried else 0,
        tests=watch.keep()[0],
        earlier=tuple(f for f in same.findings if carried is None or f != carried.finding) if same else (),
    )
    return state, watch


def is_of(state: WatchState, champion: ModelVersion, service: Service) -> bool:
    """Whether this is a watch of ``champion``, and of what ``service`` is now: other columns need another watch."""
    return (state.champion, state.dataset, state.shape) == (champion.version, champion.dataset, shape_of(service))


def shape_of(service: Service) -> str:
    """Names the inputs and answers of a service."""
    return hexdigest(digest(canonical([service.kind, service.feature_names, service.labels])))


def planned(service: Service) -> int:
    """How many quantities may be tested: inputs, predictions and, of a classifier, confidence, accuracy and its floor.

    Accuracy is counted whether or not its floor is known yet: it may join later.
    """
    return (len(service.feature_names) or 1) + (4 if service.is_classifier else 1)


def watch_accuracy(source: Source, watch: DriftWatch, version: str, since: datetime | None = None) -> bool:
    """Test accuracy from now on, if it is not yet and there is a floor; whether that is new.

    Args:
        source: of the service.
        watch: of the champion.
        version: the champion.
        since: only rounds whose records were written after this are asked; None asks all.
    """
    if "accuracy" in watch.names or not source.service.is_classifier:
        return False
    judged = judged_answers(source.store, source.service, version, since)
    floor = _floor(source.service, judged, watch.level) if judged else None
    if floor is None:
        return False
    watch.join_accuracy(floor)
    return True


def _settled(last: WatchState | None) -> datetime | None:
    """Since when samples are as they are now, as far as this and earlier watches found; None if nothing moved."""
    if last is None:
        return None
    first = min((f.since_at for f in last.findings if f.since_at), default=None)
    return max((at for at in (first, last.since) if at), default=None)


def find_reference(source: Source, tables: Versions, since: datetime | None = None) -> Reference:
    """The newest audit samples at these table versions; imported ones where those are too few, or none at all.

    Where inputs moved ``since`` then, what is older would show the same shift once more: it is no reference.
    """
    there = [d for d in drawn(source.tables, tables, AUDIT) if since is None or d.captured_at >= since]
    audit = source.inputs(fresh(there)[-MOST:])
    if rows_of(audit) >= FEWEST:
        return Reference(audit, f"the {rows_of(audit)} newest audit samples that were there when the champion was made")
    samples = fresh(drawn(source.tables, tables, IMPORTED)) if since is None else []
    if len(samples) > MOST:
        chosen = np.random.default_rng(source.service.trainer.seed).choice(len(samples), MOST, replace=False)
        samples = [samples[i] for i in sorted(chosen)]
    imported = source.inputs(samples)
    if rows_of(imported) >= FEWEST:
        return Reference(imported, f"{rows_of(imported)} imported samples, because audit samples were too few")
    return Reference(Window(), f"the first {FEWEST} audit samples after the champion was made")


def rows_of(window: Window) -> int:
    """Samples in a window that has one part, or several of one length."""
    parts = [*window.columns.values(), window.embeddings, window.predictions, window.confidence]
    return next((len(part) for part in parts if part is not None), 0)


def judged_answers(
    store: ObjectStore, service: Service, version: str, since: datetime | None = None
) -> tuple[int, int] | None:
    """How many answers of a version were right when it was judged, of how many, on audited gate samples.

    None for a regressor, and for a version that no round here made (of those recorded after ``since``).
    """
    if not service.is_classifier:
        return None
    newest = sorted(store.list(f"rounds/{service.name}"), key=lambda info: info.modified, reverse=True)
    for info in newest:
        if since and info.modified < since:
            break
        record = RoundRecord.model_validate_json(store.get(info.key))
        if record.promotion and record.evaluation and record.promotion.version == version:
            audit = record.evaluation.decision.slices.get("audit")
            return (round(audit.candidate * audit.samples), audit.samples) if audit and audit.samples else None
    return None


def _floor(service: Service, judged: tuple[int, int], alpha: float) -> float | None:
    try:
        return accuracy_floor(*judged, tolerance=service.gate.slice_margin, alpha=alpha)
    except NoFloor:
        return None
