"""The demo: a small fleet on this machine, a stream that drifts, and the loop run round by round.

It uses the product as anyone would: the stack of ``edgeloop up``, devices over MQTT, the deployed flows. What it adds
is the stream, the labels, and one round in which the labels are wrong on purpose.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from edgeloop.bootstrap import App
from edgeloop.clients.broker import Broker
from edgeloop.clients.orchestrator import RunState, RunUnfinished
from edgeloop.demo.devices import Labeller, Played, flush, replay
from edgeloop.demo.epochs import EpochLines
from edgeloop.demo.live import Live
from edgeloop.demo.plot import draw_loop
from edgeloop.demo.report import write_report
from edgeloop.demo.result import Accuracy, DemoResult, FleetNode, Pages, Round
from edgeloop.errors import BadInput, EdgeloopError
from edgeloop.fleet.reports import collect_reports
from edgeloop.learning.evaluate import encode_truth, predict
from edgeloop.learning.gate import score
from edgeloop.learning.rounds import RoundRecord, load_round
from edgeloop.learning.train import sample_rows
from edgeloop.samples.dataset import freeze, members_of
from edgeloop.samples.records import Label, Sample, digest, now, sample_id
from edgeloop.samples.segments import segment_key, write_segment
from edgeloop.samples.service import Service
from edgeloop.samples.splits import split_of
from edgeloop.sources.streams import Domain, Item, Stream, load_stream

#: Labelled items of the start get capture times from here on, so that importing them twice changes nothing.
_REFERENCE_TIME = datetime(2020, 1, 1, tzinfo=UTC)
_FLOW_ATTEMPTS = 3


class DemoFailed(EdgeloopError):
    """A flow of the demo ended in failure several times."""


@dataclass(frozen=True)
class Options:
    """How the demo is played."""

    rounds: int = 4
    devices: int = 4
    label_budget: int = 400
    """Most labels that people at the devices give in one round."""
    wrong_round: int | None = None
    """Round whose labels are wrong; 0 for none, None for the third (or the last of fewer)."""
    timeout: float = 600.0
    """Seconds that one flow run may take."""

    def __post_init__(self) -> None:
        if not 1 <= self.rounds <= 20:
            raise BadInput(f"--rounds {self.rounds} is not between 1 and 20: choose another number")

    @property
    def wrong(self) -> int:
        """Number of the round with wrong labels, 0 for none."""
        if self.wrong_round is not None:
            return self.wrong_round
        return 0 if self.rounds == 1 else min(3, max(2, self.rounds - 1))


@dataclass
class _Labels:
    """Devices label what was captured until the budget is spent; a reviewer looks at the gate samples among it.

    In a round with wrong labels the devices' are wrong. The reviewer's never are: the gate believes people only.
    """

    service: Service
    budget: int
    wrong: bool
    reviewed: list[Label] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, item: Item, sample: str) -> str | None:
        with self._lock:
            if self.budget <= 0:
                return None
            self.budget -= 1
            if split_of(digest(item.payload), self.service.name) == "gate":
                self.reviewed.append(
                    Label(
                        sample_id=sample,
                        service=self.service.name,
                        label=item.label,
                        source="human",
                        by="reviewer",
                        at=now(),
                    )
                )
        return wrong_label(self.service, item.label) if self.wrong else item.label

    def hand_in(self, app: App) -> None:
        """Put the reviewer's labels into the store, as one label segment."""
        if self.reviewed:
            data = write_segment(self.reviewed)
            app.store.create(segment_key("labels", self.service.name, data), data)


def wrong_label(service: Service, label: str) -> str:
    """A label that is in the set and wrong: the next one, or the value mirrored in the target's range."""
    if service.is_classifier:
        known = service.labels or []
        return known[(known.index(label) + 1) % len(known)]
    target = service.target
    low, high = (target.min or 0.0, target.max or 10.0) if target else (0.0, 10.0)
    return str(low + high - float(label))


def run_demo(
    app: App,
    service: Service,
    stream: Stream,
    home: Path,
    nodes: int,
    options: Options,
    live: Live,
    addresses: Mapping[str, str],
) -> DemoResult:
    """Play the demo on a running stack and write ``report.html`` and ``loop.png`` to the home.

    Args:
        app: the running stack's app.
        service: whose loop is run.
        stream: what the devices send.
        home: where the pages go.
        nodes: how many nodes serve.
        options: how to play.
        live: told what happens.
        addresses: addresses of the stack's parts to name in the result; none when it will not stay up.

    Raises:
        DemoFailed: a flow failed several times.
    """
    app.orchestrator.set_schedules(False)
    try:
        result = Demo(app, service, stream, nodes, options, live).play()
    finally:
        # A home remembers paused deployments; a later `edgeloop up` should not.
        app.orchestrator.set_schedules(True)
    plot = draw_loop(result, home / "loop.png")
    pages = Pages(
        prefect=addresses.get("prefect_ui"),
        mlflow=addresses.get("mlflow"),
        report=str(home / "report.html"),
        plot=str(home / "loop.png"),
    )
    result = result.model_copy(update={"pages": pages})
    write_report(result, home / "report.html", plot)
    return result


def find_stream(app: App, service: Service, home: Path, rounds: int) -> Stream:
    """The stream of a service's data set; on a home that has judged candidates before it is another draw of it.

    Raises:
        UnusableData, EmptyStream: the service's data set cannot be played.
    """
    played = sum(row["event"] == "gate" for row in app.fleet.history(service.name, limit=1000))
    return load_stream(service, home / "data" / str(service.data), rounds, played)


class Demo:
    """One run of the demo on a running stack."""

    def __init__(
        self,
        app: App,
        service: Service,
        stream: Stream,
        nodes: int,
        options: Options,
        live: Live,
        watch: Callable[[str, float], None] = lambda *_: None,
    ) -> None:
        self._app = app
        self._service = service
        self._stream = stream
        self._nodes = nodes
        self._options = options
        self._live = live
        self._watch = watch
        self._rounds: list[Round] = []

    def play(self) -> DemoResult:
        """Bootstrap if there is no champion, play all rounds, and say what came of it."""
        started = time.monotonic()
        if self._app.registry.champion(self._service.name) is None:
            self._bootstrap()
        first = self._standing()
        with self._app.broker() as broker:
            for number, domain in enumerate(self._stream.rounds, 1):
                self._round(broker, number, domain)
            self._live.stage("fleet")
            fleet = self._fleet(broker)
        last = self._standing()
        self._live.done()
        return DemoResult(
            service=self._service.name,
            metric="accuracy" if self._service.is_classifier else "r2",
            seconds=time.monotonic() - started,
            simulated=self._stream.simulated,
            rounds=self._rounds,
            fleet=fleet,
            accuracy=Accuracy(first=first, last=last),
        )

    def _bootstrap(self) -> None:
        self._live.round(0, f"first model from {len(self._stream.start)} labelled samples")
        self._live.stage("import")
        import_reference(self._app, self._service, [*self._stream.start, *self._stream.test])
        record = self._loop("first model")
        if record.promotion is None or not record.promotion.promoted:
            reason = record.promotion.reason if record.promotion else record.skip
            raise DemoFailed(f"the first model of {self._service.name} was not promoted: {reason}")
        self._book(0, "first model", record, Played(0, 0, len(self._stream.start)), wrong=False)

    def _round(self, broker: Broker, number: int, domain: Domain) -> None:
        wrong = number == self._options.wrong
        self._live.round(number, domain.title + (", labels wrong on purpose" if wrong else ""))
        self._live.stage("devices")
        labels = _Labels(self._service, self._options.label_budget, wrong)
        played = self._replay(broker, domain, labels)
        self._live.note(f"{played.seen} inputs answered, {played.sent} sent, {played.labelled} labelled")
        self._live.stage("upload")
        labels.hand_in(self._app)
        flush(broker, self._service.name, self._nodes)
        record = self._loop(f"round {number}")
        self._book(number, domain.title, record, played, wrong)

    def _replay(self, broker: Broker, domain: Domain, labels: Labeller) -> Played:
        return replay(broker, self._service.name, domain.items, labels, self._options.devices)

    def _loop(self, reason: str) -> RoundRecord:
        """Run the deployed loop and follow its tasks; a run that something killed is started again."""
        last = ""
        for _ in range(_FLOW_ATTEMPTS):
            self._live.stage("loop: start")
            asked = time.monotonic()
            run = self._app.orchestrator.run("loop/loop", {"service": self._service.name, "reason": reason})
            state = self._follow(run)
            if state.succeeded:
                self._watch(run, time.monotonic() - asked)
                record = load_round(self._app.store, self._service.name, run)
                self._live.note(_outcome(record))
                return record
            last = f"{state.state}: {state.message}"
            self._live.note(f"flow run {run} ended as {last}; again")
        raise DemoFailed(
            f"the loop of {self._service.name} failed {_FLOW_ATTEMPTS} times ({last}): see the runner's log"
        )

    def _follow(self, run: str) -> RunState:
        """Wait for a flow run, showing the task that it is at."""
        deadline = time.monotonic() + self._options.timeout
        at = ""
        epochs = EpochLines(lambda: self._app.orchestrator.logs(run), self._live.note)
        while True:
            try:
                return self._app.orchestrator.wait(run, timeout=0.3)
            except RunUnfinished:
                if time.monotonic() > deadline:
                    raise
            tasks = self._app.orchestrator.tasks(run)
            if tasks and tasks[-1].name != at:
                at = tasks[-1].name
                self._live.stage(at)
            if at == "train":
                epochs.look()

    def _book(self, number: int, title: str, record: RoundRecord, played: Played, wrong: bool) -> None:
        evaluation, promotion = record.evaluation, record.promotion
        before = evaluation.test.champion if evaluation else self._before()
        self._rounds.append(
            Round(
                round=number,
                title=title,
                seen=played.seen,
                sent=played.sent,
                labelled=played.labelled,
                wrong_labels=wrong,
                quarantined=record.quarantined,
                candidate_accuracy=evaluation.test.candidate if evaluation else None,
                champion_accuracy=before,
                promoted=bool(promotion and promotion.promoted),
                reason=promotion.reason if promotion else record.skip or "",
                version=record.champion,
                seconds=record.seconds,
            )
        )

    def _before(self) -> float | None:
        return self._rounds[-1].standing if self._rounds else self._standing()

    def _standing(self) -> float:
        """Metric of the present champion on the locked test split."""
        name = self._service.name
        champion = self._app.registry.champion(name)
        if champion is None:
            raise DemoFailed(f"{name} has no champion: run  edgeloop demo  again")
        tables = self._app.tables(name)
        dataset = freeze(self._app.store, tables, name)
        test = [m for m in members_of(tables, name, dataset.tables) if m.split == "test"]
        rows = sample_rows(tables, [m.sample_id for m in test])
        truth = encode_truth(self._service, [m.label for m in test])
        answers = predict(self._app.store, self._service, champion.layers, [rows[m.sample_id] for m in test])
        return score(self._service.metric, truth, answers)

    def _fleet(self, broker: Broker) -> list[FleetNode]:
        """What every node serves, once all of them say that they serve what their ring wants."""
        deadline = time.monotonic() + 60
        while True:
            reports = collect_reports(broker, self._service.name)
            nodes = [FleetNode(node=r.node, ring=r.ring, serving=r.serving, wanted=r.wanted) for r in reports]
            settled = len(nodes) >= self._nodes and all(n.settled for n in nodes)
            if settled or time.monotonic() > deadline:
                return nodes


def _outcome(record: RoundRecord) -> str:
    if record.promotion is None:
        return f"nothing trained: {record.skip}"
    return f"{'promoted' if record.promotion.promoted else 'refused'}: {record.promotion.reason}"


def import_reference(app: App, service: Service, items: list[Item]) -> None:
    """Put labelled items into the store as one capture and one label segment. Twice is the same as once."""
    samples: list[Sample] = []
    labels: list[Label] = []
    for number, item in enumerate(items):
        at = _REFERENCE_TIME + timedelta(seconds=number)
        name = sample_id(service.name, "reference", at, item.payload)
        samples.append(
            Sample(
                sample_id=name,
                service=service.name,
                device="reference",
                node="reference",
                captured_at=at,
                payload=item.payload,
                model_digest="none",
                prediction="",
                selected_by="reference",
                selection_probability=1.0,
                group=digest(item.payload),
            )
        )
        labels.append(
            Label(sample_id=name, service=service.name, label=item.label, source="human", by="data set", at=at)
        )
    for kind, data in (("captures", write_segment(samples)), ("labels", write_segment(labels))):
        app.store.create(segment_key(kind, service.name, data), data)
