"""Features that are there before anything is measured: of every scan computed once, and kept between runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from edgeloop.bench.retrain.pictures import Picture, Pictures
from edgeloop.clients.models import Backbone
from edgeloop.clients.objects import ObjectStore
from edgeloop.learning.features import compute_features, feature_rows
from edgeloop.samples.records import digest

_TOGETHER = 8192


def cache_features(
    store: ObjectStore,
    backbone: Backbone,
    pictures: Pictures,
    start: int,
    stop: int,
    say: Callable[[str], None],
) -> None:
    """See that the cache has the features of pictures ``start`` to ``stop``; a scan that comes again, in a file that
    differs in a comment, gets those of its first file."""
    kept = feature_rows(store, backbone)
    for first in range(start, stop, _TOGETHER):
        some = pictures.take(first, min(stop, first + _TOGETHER))
        names = {digest(p.payload): p for p in some}
        missing = names.keys() - kept.known(names)
        fresh = {n: names[n].payload for n in names if n in missing and names[n].number < len(pictures)}
        compute_features(store, backbone, fresh, lambda done, of: say(f"features {done}/{of}"))
        again = [names[n] for n in names if n in missing and names[n].number >= len(pictures)]
        _copy(store, backbone, pictures, again)


def _copy(store: ObjectStore, backbone: Backbone, pictures: Pictures, again: Sequence[Picture]) -> None:
    kept = feature_rows(store, backbone)
    places = {p.number: p.number % len(pictures) for p in again}
    firsts = {number: digest(pictures.take(place, place + 1)[0].payload) for number, place in places.items()}
    rows = kept.find(firsts.values())
    kept.put({digest(p.payload): rows[firsts[p.number]] for p in again})
