"""Two services under one memory budget: the one that does not fit is refused with figures, the other stays up."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from edgeloop.clients.objects import MemoryStore
from edgeloop.edge.releases import loading
from edgeloop.edge.releases.agent import Agent
from edgeloop.edge.releases.attempts import PAUSE_SECONDS
from edgeloop.edge.releases.blobs import Blobs
from edgeloop.edge.releases.channel import Channel
from edgeloop.edge.releases.downloads import Downloads
from edgeloop.edge.releases.loading import Loader
from edgeloop.edge.releases.state import StateFile
from edgeloop.edge.runtime import NotLoaded, Runtime
from edgeloop.edge.stats import Stats
from edgeloop.fleet.publisher import Publisher
from edgeloop.fleet.signing import Keys
from edgeloop.samples.records import digest
from edgeloop.samples.releases import Release, blob_key, release_key
from edgeloop.samples.service import NodeConfig
from tests.unit.edge.fakes import SERVICE, FakeModel, config, load_fake, publish
from tests.unit.edge.test_memory import MIB, Meter

BULKY, LIMIT_MB = "bulky", 150


class Site:
    """One node that may hold 150 MB and holds 80; models of ``bulky`` take as much more as the test says."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.store, self.meter, self.runtime = MemoryStore(), Meter(80), Runtime(1)
        self.publisher = Publisher(self.store, Keys(folder / "keys"))
        self.grows_mb, self.loads, self.wall = 0, 0, 1.8e9
        root = self.publisher.ensure()
        self.agent = Agent(
            Channel(lambda: self.store, root, folder / "channel", 0),
            self.runtime,
            Blobs(folder, Downloads(sleep=lambda _: None)),
            StateFile(folder),
            Stats([SERVICE, BULKY]),
            loader=Loader(self.meter.budget(LIMIT_MB)),
            wall=lambda: self.wall,
        )
        monkeypatch.setattr(loading, "load_model", self._load)
        self.agent.boot([SERVICE, BULKY])

    def _load(
        self, about: NodeConfig, layers: Mapping[str, bytes], backbone: str | None = None, *, endpoint: object = None
    ) -> FakeModel:
        assert self.meter.used_mb is not None
        if b'"bulky"' in layers["model"]:
            self.loads += 1
            self.meter.used_mb += self.grows_mb
        return load_fake(about, layers, backbone, endpoint=endpoint)

    def release(self, size_mb: int = 0) -> Release:
        """A release of ``bulky`` whose model is said to have ``size_mb``."""
        made = publish(self.store, BULKY)
        about = config().model_copy(update={"service": BULKY}).model_dump_json().encode()
        self.store.create(blob_key(digest(about)), about)
        change: dict[str, dict[str, object]] = {
            "model": {"size": size_mb * MIB} if size_mb else {},
            "config": {"digest": digest(about), "size": len(about)},
        }
        layers = [layer.model_copy(update=change.get(layer.role, {})) for layer in made.layers]
        bulky = made.model_copy(update={"service": BULKY, "layers": layers})
        self.store.put(release_key(BULKY, bulky.digest), bulky.to_bytes())
        return bulky

    def roll_out(self, release: Release) -> bool:
        self.publisher.approve(release.service, release.digest)
        self.publisher.point(release.service, 0, release.digest)
        return self.agent.poll(release.service, self.store)

    def answers(self, service: str) -> bool:
        try:
            return self.runtime.predict(service, b"[0.5,1]")[0].prediction == "yes"
        except NotLoaded:
            return False


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    made = Site(tmp_path, monkeypatch)
    small = publish(made.store, "1")
    assert made.roll_out(small) is True and made.answers(SERVICE)
    yield made
    assert made.answers(SERVICE) and made.agent.serving(SERVICE) == small.digest
    assert made.agent.status(SERVICE)[1] is None
    made.runtime.close()


def test_a_second_model_that_would_not_fit_is_refused_before_its_load(site: Site) -> None:
    big = site.release(size_mb=100)
    assert site.roll_out(big) is False and not site.answers(BULKY)
    state, error = site.agent.status(BULKY)
    assert state.refused is not None and state.refused.release == big.digest
    assert f"model bulky {big.digest} needs about " in str(error)
    assert "MB beside 80 MB in use, over the limit of 150 MB: raise memory_mb" in str(error)
    assert site.loads == 0


def test_a_second_model_that_turns_out_too_big_is_dropped_after_its_load(site: Site) -> None:
    site.grows_mb = 100
    big = site.release()
    assert site.roll_out(big) is False and not site.answers(BULKY) and site.loads == 1
    state, error = site.agent.status(BULKY)
    assert state.refused is not None and state.refused.release == big.digest and state.trying is None
    assert f"model bulky {big.digest} is loaded and the node holds 180 MB in use, over the limit of 150 MB" in str(
        error
    )
    site.meter.used_mb, site.grows_mb = 80, 10  # dropped, and some other model went
    assert site.agent.poll(BULKY, site.store) is False and site.loads == 1
    site.wall += PAUSE_SECONDS
    assert site.agent.poll(BULKY, site.store) is True and site.answers(BULKY)
    assert site.agent.status(BULKY)[1] is None


def test_a_second_model_that_fits_serves_beside_the_first(site: Site) -> None:
    site.grows_mb = 70
    assert site.roll_out(site.release()) is True and site.answers(BULKY)


@pytest.mark.parametrize("back", [1.0, 3600.0, 1e9])
def test_a_clock_that_is_set_back_prolongs_no_refusal(site: Site, back: float) -> None:
    site.grows_mb = 100
    assert site.roll_out(site.release()) is False
    site.meter.used_mb, site.grows_mb = 80, 0
    site.wall += PAUSE_SECONDS / 2
    assert site.agent.poll(BULKY, site.store) is False
    site.wall -= PAUSE_SECONDS / 2 + back
    assert site.agent.poll(BULKY, site.store) is True and site.answers(BULKY)
