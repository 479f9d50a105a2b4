"""One look at a service: test what came since the last one, and leave the state for the next. Idempotent.

A look reads only what is new, keeps all it needs in one object that is created or not, and draws its picture first:
one that is cut off is done again by the next, with the same result.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from pydantic import BaseModel

from edgeloop.clients.objects import ObjectStore
from edgeloop.clients.registry import ModelRegistry, ModelVersion
from edgeloop.learning.drift.begin import FEWEST, LONGEST, begin, is_of, rows_of, watch_accuracy
from edgeloop.learning.drift.field import answers, newly_judged, periods_of
from edgeloop.learning.drift.finding import Finding
from edgeloop.learning.drift.kept import WatchState, load_state, plot_key, save_state
from edgeloop.learning.drift.plot import plot_drift
from edgeloop.learning.drift.reading import AUDIT, Drawn, Source, confidences, drawn, fresh, predictions
from edgeloop.learning.drift.watch import DriftWatch, Window
from edgeloop.samples.dataset import TABLES
from edgeloop.samples.records import now
from edgeloop.samples.service import Service
from edgeloop.samples.table import Tables
from edgeloop.store import FleetStore

#: A round's record is written after its champion began to count; clocks may differ, too.
_LATE = timedelta(days=1)


class Looked(BaseModel):
    """What a look came to."""

    service: str
    state: WatchState | None = None
    found: list[Finding] = []
    """Findings that this look made."""
    skip: str | None = None
    """Why nothing was tested, if nothing was."""


def look(
    store: ObjectStore,
    tables: Tables,
    registry: ModelRegistry,
    fleet: FleetStore,
    service: Service,
    at: datetime | None = None,
) -> Looked:
    """Test the audit samples of ``service`` that came since the last look against the champion's reference.

    A new champion begins a new watch. Nothing is trained, asked for or promoted here.

    Raises:
        UnreadableWatch: what the last look left is damaged.
        RegistryUnavailable, StoreUnavailable, TableUnavailable: look again.
    """
    champion = registry.champion(service.name)
    if champion is None:
        return Looked(service=service.name, skip="there is no champion yet")
    release = fleet.release_of(service.name, champion.version)
    versions = {name: tables.version(name) for name in TABLES}
    former = load_state(store, service.name)
    state = former[0] if former else None
    if state and is_of(state, champion, service) and (state.tables, state.release) == (versions, release):
        return Looked(service=service.name, state=state, skip="nothing is new since the last look")
    source = Source(store, tables, service, champion.layers.get("backbone"))
    state, watch = _continued(source, champion, former, at or now())
    state, found = _tested(source, state, watch, release, versions, at or now())
    _draw(store, state)
    if not save_state(store, state, watch.keep()[1]):
        later = load_state(store, service.name)
        return Looked(service=service.name, state=later[0] if later else None, skip="another look was quicker")
    return Looked(service=service.name, state=state, found=found)


def _continued(
    source: Source, champion: ModelVersion, former: tuple[WatchState, DriftWatch] | None, at: datetime
) -> tuple[WatchState, DriftWatch]:
    if former and is_of(former[0], champion, source.service) and former[0].samples < LONGEST:
        return former
    return begin(source, champion, former, at)


def _tested(
    source: Source,
    state: WatchState,
    watch: DriftWatch,
    release: str | None,
    versions: dict[str, int | None],
    at: datetime,
) -> tuple[WatchState, list[Finding]]:
    """The state after a look at everything that these table versions have and the former look's had not."""
    everything = drawn(source.tables, versions, AUDIT)
    stream = fresh(everything, drawn(source.tables, state.began_tables, AUDIT))
    new = fresh(everything, drawn(source.tables, state.tables, AUDIT))
    window = Window()
    for part in _parts(source, release):
        window = _merged(window, _news(watch, part, stream, new))
    judged = answers(source.tables, source.service, versions)
    joined = watch_accuracy(source, watch, state.champion, state.began - _LATE)
    before = state.began_tables if joined else state.tables
    audited = newly_judged(judged, answers(source.tables, source.service, before), release)
    if audited and "accuracy" in watch.names:
        window = replace(window, right=np.asarray([float(bool(a.right)) for a in audited]))
    seen = [d.captured_at for d in new] + [a.captured_at for a in audited]
    found = watch.look(window, min(max(seen, default=at), at))
    after = {
        "number": state.number + 1,
        "release": release,
        "at": at,
        "tables": versions,
        "samples": state.samples + len(new),
        "audited": (0 if joined else state.audited) + len(audited),
        "tests": watch.keep()[0],
        "periods": periods_of(judged, source.service.selection.audit, source.service.trainer.seed),
    }
    return state.model_copy(update=after), found


@dataclass(frozen=True)
class _Part:
    """Quantities that are read together, and of which samples."""

    name: str
    """What the names of its quantities begin with."""
    read: Callable[[Sequence[Drawn]], Window]
    fits: Callable[[Drawn], bool]


def _parts(source: Source, release: str | None) -> list[_Part]:
    """Inputs are compared whoever answered them; answers only with others of the same release."""
    service = source.service
    inputs = "input " if service.image is None else "embeddings"

    def own(one: Drawn) -> bool:
        return release is not None and one.release == release

    return [
        _Part(inputs, source.inputs, lambda _: True),
        _Part("predictions", lambda some: predictions(service, some), own),
        *([_Part("confidence", confidences, own)] if service.is_classifier else []),
    ]


def _news(watch: DriftWatch, part: _Part, stream: Sequence[Drawn], new: Sequence[Drawn]) -> Window:
    """What is to be tested of ``part``; one without a reference takes the first samples of its stream as one."""
    if any(name.startswith(part.name) for name in watch.names):
        return _of_width(watch, part.read([d for d in new if part.fits(d)]))
    whole = part.read([d for d in stream if part.fits(d)])
    if rows_of(whole) < FEWEST:
        return Window()
    watch.join(_cut(whole, slice(FEWEST)))
    return _cut(whole, slice(FEWEST, None))


def _of_width(watch: DriftWatch, window: Window) -> Window:
    """The window without embeddings that cannot be compared: a node said the wrong backbone."""
    if window.embeddings is None or window.embeddings.shape[1] == watch.width("embeddings"):
        return window
    return replace(window, embeddings=None)


def _cut(window: Window, rows: slice) -> Window:
    def some(part: Any) -> Any:
        return None if part is None else part[rows]

    return Window(
        columns={name: values[rows] for name, values in window.columns.items()},
        embeddings=some(window.embeddings),
        predictions=some(window.predictions),
        confidence=some(window.confidence),
    )


def _merged(first: Window, second: Window) -> Window:
    """Both windows; each has other parts. Parts without rows are left out: an empty look is no look."""
    parts = {"embeddings": second.embeddings, "predictions": second.predictions, "confidence": second.confidence}
    columns = {name: values for name, values in second.columns.items() if len(values)}
    found: dict[str, Any] = {name: part for name, part in parts.items() if part is not None and len(part)}
    return replace(first, columns={**first.columns, **columns}, **found)


def _draw(store: ObjectStore, state: WatchState) -> None:
    """Put the picture of the watch in the store; nothing where nothing was tested."""
    with TemporaryDirectory(prefix="edgeloop-drift-") as folder:
        path = Path(folder) / "drift.png"
        plot_drift(state.courses, state.findings, path, state.periods)
        if path.exists():
            store.put(plot_key(state.service, state.watch), path.read_bytes())
