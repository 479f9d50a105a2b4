"""Every number that a node tells of itself, in its reports and in its metrics, is the number of what happened."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

from edgeloop.edge.clock import SKEW_SECONDS, NodeClock
from edgeloop.edge.memory import resident_bytes
from edgeloop.edge.metrics import exposition
from edgeloop.edge.releases.agent import Agent
from edgeloop.edge.releases.place import Place
from edgeloop.edge.releases.state import Refused, ServiceState
from edgeloop.edge.reports import Reporter, alive_message
from edgeloop.edge.runtime import Loaded
from edgeloop.edge.selection import lease
from edgeloop.edge.spool.frames import encode, frame
from edgeloop.edge.spool.spool import Limits
from edgeloop.samples.records import Report, now
from edgeloop.samples.service import Selection
from tests.unit.edge.choosing import Clock
from tests.unit.edge.fakes import SERVICE, Bench
from tests.unit.edge.spooled import label, sample

ROW = b"[0.5,1]"


class FakeAgent:
    """What an agent remembers."""

    def __init__(self) -> None:
        self.state = ServiceState(serving="sha256:b", previous="sha256:a", wanted="sha256:c")
        self.error: str | None = None
        self.ready: str | None = None

    def status(self, _service: str) -> tuple[ServiceState, str | None]:
        return self.state, self.error

    def serving(self, _service: str) -> str | None:
        return self.state.serving

    def staged(self, _service: str) -> str | None:
        return self.ready


class Site:
    """A node's parts and the reporter on them; the wall clock and the monotonic clock are the test's."""

    def __init__(self, folder: Path, limits: Limits | None = None) -> None:
        self.folder = folder / "node"
        self.bench = Bench(self.folder, limits=limits)
        self.agent, self.wall, self.monotonic = FakeAgent(), Clock(1.8e9), Clock()
        self.clock = NodeClock(self.wall, self.monotonic)
        b = self.bench
        agent, place = cast(Agent, self.agent), Place(3)
        self.reporter = Reporter(
            "n1", place, agent, b.stats, b.spool, b.selectors, self.clock, self.folder, profile="pi"
        )

    def report(self) -> Report:
        """As a reader of the broker gets it."""
        message = self.reporter.message(SERVICE)
        assert message.retain and message.topic == f"edgeloop/v1/nodes/n1/report/{SERVICE}"
        return Report.model_validate_json(message.payload)

    def metrics(self) -> dict[str, str]:
        """Value by name and labels; every line must be a sample of a declared metric or a comment."""
        lines = exposition(self.bench.stats, self.bench.spool, self.bench.runtime).splitlines()
        declared = {line.split()[2] for line in lines if line.startswith("# TYPE")}
        found = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
        assert {re.sub(r"(_bucket|_sum|_count)?({.*)?$", "", name) for name in found} <= declared
        return found


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    yield made
    made.bench.close()


def test_a_report_says_what_is_wanted_served_and_refused(site: Site) -> None:
    assert (site.report().refused, site.report().staged) == (None, None)
    site.agent.state.refused = Refused(release="sha256:d", sequence=1, error="no")
    site.agent.ready = "sha256:e"
    site.agent.error = "the store is away"
    before = now()
    report = site.report()
    assert before <= report.at <= now()
    assert (report.node, report.ring, report.service, report.online) == ("n1", 3, SERVICE, True)
    assert (report.wanted, report.serving, report.previous) == ("sha256:c", "sha256:b", "sha256:a")
    assert (report.refused, report.last_error) == ("sha256:d", "the store is away")
    assert (report.staged, report.profile) == ("sha256:e", "pi")
    site.agent.state.declined = Refused(release="sha256:e", sequence=1, error="no")
    assert site.report().refused == "sha256:e"  # of what is on its way in, before what ran
    assert not site.reporter.report(SERVICE, online=False).online


def test_answers_errors_and_captures_are_counted(site: Site) -> None:
    for payload in (ROW, b"[0.25,1]", b"junk"):
        site.bench.gateway.handle(SERVICE, "d", payload)
    report = site.report()
    assert (report.answered, report.failed, report.captured, report.not_captured) == (2, 1, 2, 0)
    assert report.spool_samples == 2 and report.spool_bytes == site.bench.spool.size > 0


def test_what_is_said_of_the_serving_release_begins_with_it(site: Site) -> None:
    for payload in (ROW, b"[0.25,1]", b"junk"):
        site.bench.gateway.handle(SERVICE, "d", payload)
    report = site.report()
    assert (report.release_answered, report.release_failed) == (2, 1) and report.latency_ms_p99 is not None
    site.bench.stats.new_release(SERVICE)
    report = site.report()
    assert (report.release_answered, report.release_failed, report.latency_ms_p99) == (0, 0, None)
    assert (report.answered, report.failed) == (2, 1)


def test_a_disk_that_takes_nothing_is_said_with_what_it_cost(site: Site) -> None:
    assert site.report().accepting and site.metrics()["edgeloop_spool_accepting"] == "1"
    site.bench.spool._disk.failed(OSError("No space left on device"))
    for _ in range(3):
        assert not site.bench.gateway.handle(SERVICE, "d", ROW).captured
    report = site.report()
    assert (report.accepting, report.not_captured, report.captured, report.answered) == (False, 3, 0, 3)
    assert report.last_error == "spool: No space left on device"
    metrics = site.metrics()
    assert (metrics["edgeloop_spool_accepting"], metrics["edgeloop_spool_refused_total"]) == ("0", "3")


def test_what_a_full_spool_dropped_is_said_by_service(tmp_path: Path) -> None:
    size = len(frame(encode(sample(1), 1)))
    site = Site(tmp_path, Limits(spool_bytes=size * 4 + 50))
    for number in range(4):
        site.bench.spool.append(sample(number), value=0.0)
    assert site.report().dropped == 0
    for number in range(4, 6):
        site.bench.spool.append(sample(number), value=1.0)
    dropped = site.report().dropped
    assert 2 <= dropped == 6 - site.bench.spool.samples
    assert site.metrics()[f'edgeloop_spool_dropped_total{{service="{SERVICE}"}}'] == str(dropped)
    site.bench.close()


def test_latencies_are_milliseconds_of_the_last_answers(site: Site) -> None:
    assert (site.report().latency_ms_p50, site.report().latency_ms_p99) == (None, None)
    for number in range(1, 101):
        site.bench.stats.answered(SERVICE, number / 1000, None)
    report = site.report()
    assert report.latency_ms_p50 == pytest.approx(50, abs=1) and report.latency_ms_p99 == pytest.approx(99, abs=1)


def test_confidences_are_counted_in_ten_bins_until_the_next_release(site: Site) -> None:
    for confidence in (0.0, 0.05, 0.1, 0.55, 0.99, 1.0, float("nan"), float("-inf")):
        site.bench.stats.answered(SERVICE, 0.001, confidence)
    site.bench.stats.answered(SERVICE, 0.001, None)
    site.bench.stats.audited(SERVICE, "a", agreed=True)
    assert site.report().confidence_histogram == [2, 1, 0, 0, 0, 1, 0, 0, 0, 2]
    site.bench.stats.new_release(SERVICE)
    assert site.report().confidence_histogram == [0] * 10 and site.report().audit == {}


def test_audited_answers_are_tallied_and_starved_draws_told(site: Site) -> None:
    assert site.report().audit == {}
    for number, said in enumerate(("yes", "yes", "no")):
        result = site.bench.gateway.handle(SERVICE, "d", b"[0.5,%d]" % number)
        word = b'{"sample_id": "%s", "label": "%s"}' % ((result.sample_id or "").encode(), said.encode())
        assert site.bench.gateway.feedback(SERVICE, "d", word) is None
    assert site.report().audit == {"labelled": 3, "agreed": 2}
    tight = Selection(audit=1.0, bytes_per_hour=1024, payload="raw")
    policy = site.bench.config.model_copy(update={"selection": tight})
    site.bench.runtime.switch(SERVICE, Loaded("sha256:r2", "2", policy, site.bench.model))
    sent = [site.bench.gateway.handle(SERVICE, "d", b"[0.5,%d%s]" % (n, b" " * 400)) for n in range(200)]
    starved = sum(not result.captured for result in sent)
    assert site.report().audit == {"labelled": 3, "agreed": 2, "starved": starved} and starved > 0
    assert site.report().passed == {"budget": starved}


def test_a_label_is_tallied_once_and_for_the_release_that_answered(site: Site) -> None:
    def say(label: str, by: str = "ann") -> None:
        word = f'{{"sample_id": "{name}", "label": "{label}", "by": "{by}"}}'
        assert site.bench.gateway.feedback(SERVICE, "d", word.encode()) is None

    name = site.bench.gateway.handle(SERVICE, "d", ROW).sample_id
    say("yes")
    say("yes")
    assert site.report().audit == {"labelled": 1, "agreed": 1}
    site.bench.runtime.switch(SERVICE, Loaded("sha256:r2", "2", site.bench.config, site.bench.model))
    site.bench.stats.new_release(SERVICE)
    say("yes", by="bob")
    assert site.report().audit == {}
    name = site.bench.gateway.handle(SERVICE, "e", ROW).sample_id
    say("no")
    assert site.report().audit == {"labelled": 1, "agreed": 0}


def test_a_device_that_changes_its_mind_counts_once_by_its_last_word(site: Site) -> None:
    def say(label: str, by: str = "ann") -> dict[str, int]:
        word = f'{{"sample_id": "{name}", "label": "{label}", "by": "{by}"}}'
        assert site.bench.gateway.feedback(SERVICE, "d", word.encode()) is None
        return site.report().audit

    name = site.bench.gateway.handle(SERVICE, "d", ROW).sample_id
    assert say("yes") == {"labelled": 1, "agreed": 1}
    assert say("no") == {"labelled": 1, "agreed": 0}
    assert say("yes") == {"labelled": 1, "agreed": 1}
    assert say("no", by="bob") == {"labelled": 1, "agreed": 0}, "another device on the same answer"
    name = site.bench.gateway.handle(SERVICE, "e", ROW).sample_id
    assert say("yes") == {"labelled": 2, "agreed": 1}
    site.bench.stats.new_release(SERVICE)
    assert site.report().audit == {}


def test_a_disk_that_takes_no_lease_is_told(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(lease, "write_durably", refuse)
    limited = Selection(audit=1.0, bytes_per_hour=600_000, payload="raw")
    policy = site.bench.config.model_copy(update={"selection": limited})
    site.bench.runtime.switch(SERVICE, Loaded("sha256:r2", "2", policy, site.bench.model))
    assert not site.bench.gateway.handle(SERVICE, "d", ROW).captured
    assert site.report().passed == {"no-lease": 1}
    assert site.metrics()[f'edgeloop_passed_total{{service="{SERVICE}",reason="no-lease"}}'] == "1"


def test_jumps_of_the_clock_are_told(site: Site) -> None:
    site.clock.now()
    assert site.report().clock_jumps == 0
    site.wall.now += SKEW_SECONDS * 2
    site.clock.now()
    assert site.report().clock_jumps == 1


def test_memory_and_disk_are_those_of_the_process_and_of_the_nodes_folder(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = resident_bytes()
    assert held is not None
    assert site.report().memory_bytes == pytest.approx(held, rel=0.2)
    asked: list[Path] = []
    real = shutil.disk_usage

    def usage(path: Path) -> object:
        asked.append(path)
        return real(path)._replace(free=12_345)

    monkeypatch.setattr(shutil, "disk_usage", usage)
    assert site.report().disk_free_bytes == 12_345 and asked == [site.folder]
    monkeypatch.undo()
    shutil.rmtree(site.folder)
    assert site.report().disk_free_bytes is None


def test_a_node_says_that_it_is_there_for_all_who_come_later() -> None:
    message = alive_message("n1", 2, False)
    assert message.retain and message.topic == "edgeloop/v1/nodes/n1/alive"
    assert re.match(rb'{"node": "n1", "ring": 2, "online": false, "at": "2', message.payload)


# --- metrics


def test_feedback_that_was_no_use_is_a_metric(site: Site) -> None:
    name = f'edgeloop_feedback_refused_total{{service="{SERVICE}"}}'
    assert site.metrics()[name] == "0"
    for word in (b"junk", b'{"sample_id": "%s", "label": "yes"}' % (b"0" * 64)):
        assert site.bench.gateway.feedback(SERVICE, "d", word) is not None
    assert site.metrics()[name] == "2"


@pytest.mark.parametrize("reason", ["retained", "topic", "unknown"])
def test_messages_that_are_no_input_are_a_metric_by_the_reason(site: Site, reason: str) -> None:
    name = f'edgeloop_messages_ignored_total{{reason="{reason}"}}'
    assert site.metrics()[name] == "0"
    site.bench.stats.ignored[reason] += 2
    assert site.metrics()[name] == "2"


def test_what_waits_for_the_store_is_a_metric(site: Site) -> None:
    site.bench.spool.append(sample(1))
    site.bench.spool.append(label(1))
    metrics = site.metrics()
    assert metrics["edgeloop_spool_samples"] == "2"
    assert metrics["edgeloop_spool_bytes"] == str(site.bench.spool.size) != "0"
