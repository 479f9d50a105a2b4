"""A release that fails in service is taken back, and the one behind it is one that was proven."""

from __future__ import annotations

import time
from collections.abc import Callable

from edgeloop.edge.runtime import TRIAL, WINDOW, ModelFailed
from tests.unit.edge.agents import Site, layer_name, site
from tests.unit.edge.fakes import SERVICE, FakeModel, publish

__all__ = ["site"]


def fail(site: Site, times: int) -> int:
    """Ask so often; how often it failed."""
    failed = 0
    for _ in range(times):
        try:
            site.runtime.predict(SERVICE, b"[0.5,0.5]")
        except ModelFailed:
            failed += 1
    return failed


def until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_a_release_that_fails_on_its_first_inputs_is_taken_back(site: Site) -> None:
    good = publish(site.store, "1")
    site.roll_out(good)
    bad = publish(site.store, "2", broken=True)
    assert site.roll_out(bad) is True
    assert site.agent.status(SERVICE)[0].trying == bad.digest
    assert fail(site, TRIAL) == TRIAL // 2 + 1
    until(lambda: site.agent.status(SERVICE)[0].refused is not None)
    state, error = site.agent.status(SERVICE)
    assert site.agent.serving(SERVICE) == good.digest == state.serving
    assert state.refused is not None and state.refused.release == bad.digest and state.trying is None
    assert "failed on most" in str(error)
    assert site.poll() is False
    site.boot()
    assert site.poll() is False and site.agent.serving(SERVICE) == good.digest


def test_a_proven_release_that_fails_later_is_taken_back_once_and_from_the_disk(site: Site) -> None:
    good, bad = publish(site.store, "1"), publish(site.store, "2")
    site.roll_out(good)
    site.prove()
    site.roll_out(bad)
    site.prove()
    loaded = site.runtime.loaded(SERVICE)
    assert loaded is not None and isinstance(loaded.model, FakeModel)
    loaded.model.broken = True
    assert fail(site, WINDOW // 2) == WINDOW // 2 and site.agent.serving(SERVICE) == bad.digest
    fail(site, 1)
    until(lambda: site.agent.status(SERVICE)[0].refused is not None)
    assert site.agent.serving(SERVICE) == good.digest
    state, error = site.agent.status(SERVICE)
    assert state.refused is not None and state.refused.release == bad.digest and "failed on most" in str(error)
    again = site.runtime.loaded(SERVICE)
    assert again is not None and isinstance(again.model, FakeModel)
    again.model.broken = True
    fail(site, 2 * WINDOW)
    site.agent.fall_back(SERVICE, good.digest)
    assert site.agent.serving(SERVICE) == good.digest  # there is nothing behind it


def test_a_release_on_trial_is_nothing_to_fall_back_to_while_there_is_a_proven_one(site: Site) -> None:
    proven, tried = publish(site.store, "1"), publish(site.store, "2")
    site.roll_out(proven)
    site.prove()
    site.roll_out(tried)
    site.roll_out(publish(site.store, "3", broken=True))
    assert site.agent.status(SERVICE)[0].previous == proven.digest and layer_name(proven) in site.blobs()
    fail(site, TRIAL)
    assert site.agent.serving(SERVICE) == proven.digest


def test_after_a_restart_too_it_falls_back_to_the_proven_release(site: Site) -> None:
    proven, tried = publish(site.store, "1"), publish(site.store, "2")
    site.roll_out(proven)
    site.prove()
    site.roll_out(tried)
    site.boot()
    site.roll_out(publish(site.store, "3", broken=True))
    fail(site, TRIAL)
    until(lambda: site.agent.serving(SERVICE) == proven.digest)


def test_rolled_back_to_the_proven_release_it_does_not_fall_back_to_itself(site: Site) -> None:
    proven, tried = publish(site.store, "1"), publish(site.store, "2")
    site.roll_out(proven)
    site.prove()
    site.roll_out(tried)
    site.roll_out(proven)
    assert site.agent.status(SERVICE)[0].previous == tried.digest
    site.roll_out(publish(site.store, "3", broken=True))  # on trial again or not, it has served longer
    fail(site, TRIAL)
    assert site.agent.serving(SERVICE) == proven.digest


def test_the_previous_release_is_forgotten_when_the_next_is_proven(site: Site) -> None:
    site.roll_out(publish(site.store, "1"))
    second = publish(site.store, "2")
    site.roll_out(second)
    assert site.agent.status(SERVICE)[0].trying == second.digest
    site.prove()
    assert site.agent.status(SERVICE)[0].trying is None
