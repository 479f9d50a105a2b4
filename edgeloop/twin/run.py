"""One rehearsal: stage, confine, ask, compare, judge, and keep the report."""

from __future__ import annotations

import base64
import json
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edgeloop.clients.models import FailedProbe, Model, load_model, run_probe
from edgeloop.clients.objects import ObjectStore
from edgeloop.errors import BadInput
from edgeloop.release.optimise.measure import compare, machine
from edgeloop.samples.profiles import Profile
from edgeloop.samples.records import digest, now
from edgeloop.samples.releases import Layer, Release, blob_key
from edgeloop.samples.service import NodeConfig, Service
from edgeloop.samples.table import Tables
from edgeloop.twin.asking import Recalled, Replayed, Sender, replay
from edgeloop.twin.confine import Confined, Cores, asking_from, confined, divide
from edgeloop.twin.judge import judge, over_memory
from edgeloop.twin.kept import Rehearsals, keep, load_report
from edgeloop.twin.load import THREADS, find_break
from edgeloop.twin.records import LostReport, TwinReport, terms_of
from edgeloop.twin.stage import Staged, staged
from edgeloop.twin.starting import OVER_MEMORY, bare_environment, died_of, wait_until_served
from edgeloop.twin.traffic import Traffic, recent_traffic

#: What a node without a model takes, in MiB.
EMPTY_MB = 66
REPLAY_SECONDS = 60.0
LOAD_SECONDS = 40.0
#: The load test begins at this part of what one answer after the other would come to.
_FIRST_RATE = 0.4
_RUNS_HERE = ("litert", "onnx")
_ARCHES = {"x86_64": "amd64", "aarch64": "arm64"}
Say = Callable[[str], None]


class ProfileTooSmall(BadInput):
    """Not even a node without a model fits into a profile."""


@dataclass(frozen=True)
class Parts:
    """What a rehearsal works with."""

    store: ObjectStore
    tables: Callable[[str], Tables]
    rehearsals: Rehearsals
    cgroup: Path | None = None
    """A delegated control group of version 2."""
    command: tuple[str, ...] = (sys.executable, "-m", "edgeloop.edge.node")
    """What starts a node."""
    load_seconds: float = LOAD_SECONDS


def rehearse(
    parts: Parts,
    service: Service,
    release: Release,
    profile: Profile,
    *,
    again: bool = False,
    say: Say = lambda _: None,
) -> TwinReport:
    """Run ``release`` as a node of ``profile`` would, and keep what was found.

    A release that was rehearsed by the same terms is not rehearsed a second time unless ``again``.

    Raises:
        NoVariant: the release has none for the profile.
        ProfileTooSmall, UnusableCgroup: nothing was run.
        ObjectMissing: a layer of the release is lost.
    """
    release.layers_for(profile.name)
    if profile.memory_mb < EMPTY_MB:
        raise ProfileTooSmall(
            f"profile {profile.name} gives a node {profile.memory_mb} MB, and one without a model takes {EMPTY_MB}:"
            " raise memory_mb"
        )
    known = parts.rehearsals.newest(release.digest, profile.name, terms_of(profile, service.delivery.twin))
    if known and not again:
        try:
            return load_report(parts.store, known.report)
        except LostReport as error:
            say(str(error))
    report = _Rehearsal(parts, service, release, profile, say).perform()
    keep(parts.store, parts.rehearsals, report)
    return report


@dataclass
class _Rehearsal:
    parts: Parts
    service: Service
    release: Release
    profile: Profile
    say: Say
    found: dict[str, Any] = field(default_factory=dict)
    """Fields of the report."""

    def perform(self) -> TwinReport:
        began, runtime = time.monotonic(), self._foreign_runtime()
        if runtime:
            broken = None
            reasons = [f"{runtime} does not run in a node on this machine: try it on the board, then approve by hand"]
        else:
            broken, reasons = self._run(), []
        report = self._report(time.monotonic() - began)
        if reasons:
            return report.model_copy(update={"outcome": "inconclusive", "reasons": reasons})
        if broken == OVER_MEMORY:
            broken = over_memory(report)
        outcome, reasons = judge(report, broken)
        return report.model_copy(update={"outcome": outcome, "reasons": reasons})

    def _foreign_runtime(self) -> str | None:
        mine = [v.runtime for v in self.release.variants if v.profile == self.profile.name]
        return next((runtime for runtime in mine if runtime not in _RUNS_HERE), None)

    def _report(self, seconds: float) -> TwinReport:
        return TwinReport(
            service=self.service.name,
            model=self.release.version,
            release=self.release.digest,
            profile=self.profile,
            rules=self.service.delivery.twin,
            machine=machine(),
            at=now(),
            seconds=round(seconds, 1),
            outcome="inconclusive",
            reasons=[],
            notes=self._notes(),
            **self.found,
        )

    def _notes(self) -> list[str]:
        here, profile = _ARCHES.get(platform.machine(), platform.machine()), self.profile
        notes = []
        if here != profile.arch:
            notes.append(f"ran on {here}, {profile.arch} is not emulated: times are multiplied by {profile.slowdown:g}")
        within = self.found.get("confinement")
        if within and within.cores < profile.cores:
            notes.append(f"this machine gave the node {within.cores} of {profile.cores} cores")
        if within and within.shared:
            notes.append("who asked ran on the node's cores, which makes times longer")
        return notes

    # --- on the stage

    def _run(self) -> str | None:
        """Measure; what kept it from being measured to the end, if something did."""
        traffic = recent_traffic(self.parts.tables(self.service.name), self.service, self.service.delivery.twin.inputs)
        self.found["source"] = traffic.source
        cores = divide(self.profile.cores)
        with self._node(cores) as (stage, node):
            self.say(f"a node with {len(cores.node)} cores and {self.profile.memory_mb} MB ({node.within.how}) begins")
            try:
                broken, replayed = self._ask(stage, node, traffic, cores)
                # What a node died of explains the errors that it left.
                broken = died_of(stage, node) or broken
            finally:
                self.found["peak_mb"] = _rounded(node.peak_mb())
        if replayed and not broken:
            self._compare(replayed, traffic)
        return broken

    @contextmanager
    def _node(self, cores: Cores) -> Iterator[tuple[Staged, Confined]]:
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="edgeloop-twin-")))
            stage = stack.enter_context(staged(self.parts.store, self.release, self.profile, folder))
            command = [*self.parts.command, "--config", str(stage.config)]
            memory, cgroup = self.profile.memory_mb, self.parts.cgroup
            node = stack.enter_context(confined(command, cores, memory, stage.log, bare_environment(), cgroup))
            self.found["confinement"] = node.within
            yield stage, node

    def _ask(self, stage: Staged, node: Confined, traffic: Traffic, cores: Cores) -> tuple[str | None, Replayed | None]:
        if broken := wait_until_served(stage, node, self.service.name):
            return broken, None
        port = stage.port()
        assert port is not None
        with closing(Sender(port, self.service.name, THREADS)) as sender, asking_from(cores):
            self._check_itself(sender)
            self.say(f"{len(traffic.payloads)} {traffic.source} inputs")
            replayed = self._replay(sender, traffic)
            if replayed.seconds and self.service.delivery.twin.load and not self._is_late(self.found["p99_ms"]):
                self.say("rising load")
                self._load(sender, traffic)
            if not sender.is_ready():
                node.settle()
        return None, replayed

    def _check_itself(self, sender: Sender) -> None:
        """What the node compared by itself when it loaded the model, once more from outside."""
        layer = next((one for one in self.release.layers_for(self.profile.name) if one.role == "probe"), None)
        if layer is None:
            return
        probe = self.parts.store.get(blob_key(layer.digest))
        payloads = [base64.b64decode(case["payload"]) for case in json.loads(probe)["cases"]]
        done = replay(sender.ask, payloads, REPLAY_SECONDS)
        try:
            run_probe(Recalled(done.answers, None), probe, self.service.kind != "tabular-regressor")
            self.found["self_check"] = True
        except (FailedProbe, KeyError):
            self.found["self_check"] = False

    def _replay(self, sender: Sender, traffic: Traffic) -> Replayed:
        done = replay(sender.ask, traffic.payloads, REPLAY_SECONDS)
        times = _times(done)
        if times and self._is_late(times[1]):  # once more: a machine has moments of its own
            second = _times(replay(sender.ask, traffic.payloads, REPLAY_SECONDS))
            times = min(times, second or times, key=lambda pair: pair[1])
        first = done.errors[0] if done.errors else None
        self.found |= {"inputs": done.asked, "errors": len(done.errors), "first_error": first}
        self.found |= {"p50_ms": times[0], "p99_ms": times[1]} if times else {}
        return done

    def _is_late(self, p99_ms: float) -> bool:
        return p99_ms * self.profile.slowdown > self.profile.latency_ms_p99

    def _load(self, sender: Sender, traffic: Traffic) -> None:
        payloads, profile = traffic.payloads, self.profile
        self.found["load"] = find_break(
            lambda number: sender.ask(payloads[number % len(payloads)]),
            profile.latency_ms_p99,
            max(1.0, _FIRST_RATE * 1000 / self.found["p50_ms"]),
            profile.slowdown,
            self.parts.load_seconds,
        )

    def _compare(self, replayed: Replayed, traffic: Traffic) -> None:
        """Beside the model as it was trained, which runs here, unconfined."""
        self.say("comparing with the trained model")
        trained = self._trained()
        answered = [payload for payload in traffic.payloads if digest(payload) in replayed.answers]
        agreed = compare(trained, Recalled(replayed.answers, trained.labels), answered)
        self.found |= {"compared": agreed.compared, "same": agreed.same}

    def _trained(self) -> Model:
        layers = {layer.role: self._blob(layer) for layer in self.release.layers}
        config = NodeConfig.model_validate_json(layers["config"])
        backbone = self.release.layer("backbone")
        contents: Mapping[str, bytes] = {str(role): data for role, data in layers.items()}
        return load_model(config, contents, backbone.digest if backbone else None, interpreters=1)

    def _blob(self, layer: Layer) -> bytes:
        return self.parts.store.get(blob_key(layer.digest))


def _times(done: Replayed) -> tuple[float, float] | None:
    if not done.seconds:
        return None
    p50, p99 = np.quantile(done.seconds, (0.5, 0.99)) * 1000
    return round(float(p50), 3), round(float(p99), 3)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 1)
