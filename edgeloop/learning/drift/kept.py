"""What a look leaves for the next one: one object, written once, whose number says which look it was.

Of two that look at the same time, one creates the next object and the other throws its work away. The last two are
kept, so that whoever reads while another writes finds one of them whole.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from edgeloop.clients.objects import ObjectMissing, ObjectStore
from edgeloop.errors import EdgeloopError
from edgeloop.learning.drift.field import Period
from edgeloop.learning.drift.finding import Course, Finding
from edgeloop.learning.drift.watch import DriftWatch, KeptWatch

if TYPE_CHECKING:
    from numpy.typing import NDArray

_ATTEMPTS = 4


class UnreadableWatch(EdgeloopError):
    """The kept state of a drift watch is damaged, or of another version of edgeloop."""


class WatchState(BaseModel):
    """A watch of one champion: what it tests, how far it came, what it found."""

    model_config = ConfigDict(protected_namespaces=(), frozen=True)

    schema_version: Literal[1] = 1
    number: int
    """Of the look; it grows over all watches of the service."""
    service: str
    champion: str
    """MLflow version."""
    dataset: str
    """Dataset version that the champion learned from."""
    shape: str
    """Digest of the service's inputs and labels."""
    release: str | None
    """The champion as nodes run it: answers of others are not compared with its own."""
    watch: str
    """Name of the watch: the champion and the look at which it began."""
    part: int = 0
    """A watch that tested very many samples goes on as a new part with a new reference and less ``alpha``."""
    alpha: float
    """The most often that this part ever raises a finding without drift."""
    began: datetime
    at: datetime
    began_tables: dict[str, int | None]
    """Table versions that the stream is counted from."""
    tables: dict[str, int | None]
    """Table versions of the last look."""
    reference: str
    """What inputs are compared with, in words."""
    since: datetime | None = None
    """Samples from before this are no reference: an earlier watch found that something moved."""
    samples: int = 0
    """Samples of the stream since this part began."""
    audited: int = 0
    """Audited answers of the champion that were tested."""
    tests: KeptWatch
    earlier: tuple[Finding, ...] = ()
    """Findings of earlier parts."""
    periods: tuple[Period, ...] = ()
    """How right the fleet's answers were, over time."""

    @property
    def findings(self) -> list[Finding]:
        """All findings of the watch, the earliest first; without their courses."""
        now = [kept.finding for kept in self.tests.monitors.values() if kept.finding]
        return [*self.earlier, *sorted(now, key=lambda f: f.samples)]

    @property
    def courses(self) -> list[Course]:
        """The looks at each quantity of this part."""
        return [kept.course for kept in self.tests.monitors.values()]


def state_key(service: str, number: int) -> str:
    """Object key of what look ``number`` left."""
    return f"drift/{service}/looks/{number:010d}.npz"


def plot_key(service: str, watch: str) -> str:
    """Object key of the picture of a watch."""
    return f"drift/{service}/{watch}.png"


def encode(state: WatchState, arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """The object of a look: NumPy's archive of the arrays, with the state as JSON in ``state``."""
    sink = io.BytesIO()
    said = np.frombuffer(state.model_dump_json().encode(), dtype=np.uint8)
    np.savez_compressed(sink, allow_pickle=False, state=said, **arrays)
    return sink.getvalue()


def decode(data: bytes, key: str) -> tuple[WatchState, DriftWatch]:
    """Read what :func:`encode` wrote.

    Raises:
        UnreadableWatch: it is damaged, or of another version.
    """
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as parts:
            arrays = {name: parts[name] for name in parts.files}
        state = WatchState.model_validate_json(arrays.pop("state").tobytes())
        return state, DriftWatch.restore(state.tests, arrays)
    except (OSError, ValueError, KeyError, IndexError, EOFError, zipfile.BadZipFile, ValidationError) as error:
        said = " ".join(str(error).split())[:200]
        raise UnreadableWatch(
            f"{key} holds no drift watch that this version reads ({said}): delete it, and the look before it counts"
        ) from error


def load_state(store: ObjectStore, service: str) -> tuple[WatchState, DriftWatch] | None:
    """What the last look at ``service`` left; None before the first.

    Raises:
        UnreadableWatch: see :func:`decode`.
    """
    for _ in range(_ATTEMPTS):
        keys = [info.key for info in store.list(f"drift/{service}/looks")]
        if not keys:
            return None
        try:
            return decode(store.get(keys[-1]), keys[-1])
        except ObjectMissing:  # two looks ended since the listing
            continue
    return None


def save_state(store: ObjectStore, state: WatchState, arrays: Mapping[str, NDArray[Any]]) -> bool:
    """Leave what a look came to; False if another look with its number did before."""
    if not store.create(state_key(state.service, state.number), encode(state, arrays)):
        return False
    for info in list(store.list(f"drift/{state.service}/looks")):
        if info.key < state_key(state.service, state.number - 1):
            store.delete(info.key)
    return True
