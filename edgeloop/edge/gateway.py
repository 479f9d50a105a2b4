"""What happens to one input, whichever way it came: predict, choose, keep, answer. Once, however often it is sent."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import TypeVar

from edgeloop.clients.models import Answer, ModelUnavailable
from edgeloop.edge.clock import NodeClock
from edgeloop.edge.feedback import UnknownSample, check_label, named_sample, parse_feedback
from edgeloop.edge.keeping import (
    Input,
    NothingToKeep,
    OversizedPayload,
    canonical_payload,
    make_sample,
    max_bytes,
    what_to_keep,
)
from edgeloop.edge.logs import kind_of
from edgeloop.edge.once import Once
from edgeloop.edge.results import LONGEST_ERROR, OUTCOMES, Result
from edgeloop.edge.runtime import Loaded, ModelFailed, NotLoaded, NoTurn, Runtime
from edgeloop.edge.selection.selector import Chooser
from edgeloop.edge.spool.captures import Captures
from edgeloop.edge.spool.spool import SpoolFailed, SpoolFull
from edgeloop.edge.stats import Stats
from edgeloop.errors import BadInput, EdgeloopError
from edgeloop.samples.payloads import UndecodablePayload
from edgeloop.samples.records import Label, Sample

_log = logging.getLogger(__name__)
Outcome = TypeVar("Outcome")


class UnknownService(BadInput):
    """This node does not serve the service."""


class Gateway:
    """Answers inputs and takes feedback. Methods may be called from any thread, and run the model in it."""

    def __init__(
        self,
        node: str,
        runtime: Runtime,
        spool: Captures,
        stats: Stats,
        selectors: Chooser,
        *,
        clock: NodeClock | None = None,
        grouped: bool = False,
        remember: int = 10_000,
    ) -> None:
        """``grouped``: devices are shared with other nodes, so feedback may be for a sample that one of them has."""
        self._node = node
        self._runtime = runtime
        self._spool = spool
        self._stats = stats
        self._selectors = selectors
        self.clock = clock or NodeClock()
        self._grouped = grouped
        self._once = Once(remember)

    # --- inputs

    def handle(
        self,
        service: str,
        device: str,
        payload: bytes,
        captured_at: datetime | None = None,
        order: Sequence[str] | None = None,
    ) -> Result:
        """Answer one input; if it was chosen, it is durable when this returns. Errors are results too.

        The same input with the same ``captured_at`` gets the same result and is counted and captured once. ``order``
        names the features of a row that was put in order for a release which may not serve any more.
        """
        return self.begin(service, device, payload, captured_at, order)()

    def begin(
        self,
        service: str,
        device: str,
        payload: bytes,
        captured_at: datetime | None = None,
        order: Sequence[str] | None = None,
    ) -> Callable[[], Result]:
        """:meth:`handle` up to the wait for the disk; what is returned waits, and must be called, in the same order.

        Many inputs that are begun before the first is waited for share one sync of the disk.
        """
        at = captured_at or self.clock.now()
        try:
            loaded = self._serving(service, order)
            canonical = canonical_payload(loaded.config, payload)
            asked = Input(service, device, canonical, at, self.clock.is_skewed(at))
        except UnknownService as error:
            return _done(self._error(Input(service, device, payload, at), str(error), "unknown"))
        except NotLoaded as error:
            return _done(self._error(Input(service, device, payload, at), str(error), "not_ready"))
        except OversizedPayload as error:
            return _done(self.reject(service, device, str(error)))
        except UndecodablePayload as error:
            return _done(self._error(Input(service, device, payload, at), str(error), "bad_input"))
        known = self._once.claim(asked.sample_id)
        if known is None:
            return self._begin_first(asked, loaded)
        return _done(known) if isinstance(known, Result) else known.result

    def serves(self, service: str) -> bool:
        """Whether ``service`` is one of this node's, with a release or not."""
        return service in self._stats.services

    def max_bytes(self, service: str) -> int:
        """Largest payload of ``service`` in bytes, so that a larger one can be refused before it is looked at."""
        loaded = self._runtime.loaded(service)
        return max_bytes(loaded.config if loaded else None)

    def _serving(self, service: str, order: Sequence[str] | None) -> Loaded:
        """The release that answers from here on: the payload is read by its words, whatever comes into service."""
        if service not in self._stats.services:
            raise UnknownService(f"this node does not serve {service[:80]}: see its node.yaml")
        loaded = self._runtime.loaded(service)
        if loaded is None:
            raise NotLoaded(f"service {service} has no release on this node yet: roll one out to its ring")
        if order is not None and list(order) != loaded.config.feature_names:
            raise NotLoaded(f"service {service} takes its features in another order since just now: send it again")
        return loaded

    def _begin_first(self, asked: Input, loaded: Loaded) -> Callable[[], Result]:
        try:
            finish = self._answer(asked, loaded)
        except BaseException as error:
            self._once.fail(asked.sample_id, error)
            raise
        return partial(self._settle, asked.sample_id, finish)

    def _settle(self, name: str, finish: Callable[[], Result]) -> Result:
        try:
            result = finish()
        except BaseException as error:
            self._once.fail(name, error)
            raise
        # Sent again, a failure may go better.
        self._once.settle(name, result, keep=result.outcome not in {"model_error", "not_ready"})
        return result

    def _answer(self, asked: Input, loaded: Loaded) -> Callable[[], Result]:
        started = time.perf_counter()
        try:
            answer, _ = self._runtime.predict(asked.service, asked.payload, loaded)
        except UndecodablePayload as error:
            return _done(self._error(asked, str(error), "bad_input"))
        except (ModelUnavailable, NoTurn) as error:
            return _done(self._error(asked, str(error), "not_ready"))
        except ModelFailed as error:
            _log.error("a model failed", extra={"service": asked.service, "error": kind_of(error)})
            return _done(self._error(asked, str(error), "model_error"))
        seconds = time.perf_counter() - started
        before = self._spool.selected(asked.sample_id)
        if before is not None:  # captured, and sent again after a restart
            return _done(self._result(asked, answer, loaded, before, taken=True))
        self._stats.answered(asked.service, seconds, answer.confidence)
        return self._choose(asked, answer, loaded)

    def _result(
        self, asked: Input, answer: Answer, loaded: Loaded, selected_by: str | None = None, *, taken: bool = False
    ) -> Result:
        return Result(
            service=asked.service,
            device=asked.device,
            node=self._node,
            at=self.clock.stamp(),
            sample_id=asked.sample_id,
            prediction=answer.prediction,
            confidence=answer.confidence,
            captured=taken,
            selected_by=selected_by,
            model=loaded.release,
            probabilities=answer.probabilities,
        )

    def _choose(self, asked: Input, answer: Answer, loaded: Loaded) -> Callable[[], Result]:
        try:
            kept = what_to_keep(asked, answer, loaded.config)
        except NothingToKeep as error:
            _log.error("not captured", extra={"service": asked.service, "error": str(error)})
            self._stats.passed(asked.service, "no-embedding")
            return _done(self._result(asked, answer, loaded))
        choice = self._selectors.choose(loaded.config, asked.sample_id, asked.payload, answer, kept.size)
        selected_by = choice.selected_by
        if selected_by is None:
            self._stats.passed(asked.service, choice.dropped or "uninformative")
            return _done(self._result(asked, answer, loaded))
        sample = make_sample(self._node, asked, answer, loaded, choice, kept)
        taking = self._begin_taking(sample, choice.value)

        def finish() -> Result:
            taken = taking()
            self._stats.captured(asked.service, selected_by, taken=taken)
            return self._result(asked, answer, loaded, selected_by, taken=taken)

        return finish

    def _begin_taking(self, record: Sample, value: float) -> Callable[[], bool]:
        """What is returned waits for the disk, and says whether it has the record."""
        try:
            wait = self._spool.begin(record, value)
        except (SpoolFull, SpoolFailed) as error:
            return _done(_not_taken(record, error))

        def taken() -> bool:
            try:
                wait()
            except (SpoolFull, SpoolFailed) as error:
                return _not_taken(record, error)
            return True

        return taken

    def _error(self, asked: Input, error: str, outcome: str) -> Result:
        """A result with an error, counted unless it is about a service that is not here."""
        return replace(self.reject(asked.service, asked.device, error, outcome), sample_id=asked.sample_id)

    def reject(self, service: str, device: str, error: str, outcome: str = "bad_input") -> Result:
        """The result of an input that could not be taken at all."""
        if service not in self._stats.services:
            outcome = "unknown"
        if outcome in OUTCOMES:
            self._stats.failed(service, outcome)
        return Result(service, device, self._node, self.clock.stamp(), error=error[:LONGEST_ERROR], outcome=outcome)

    # --- feedback

    def feedback(self, service: str, device: str, payload: bytes, at: datetime | None = None) -> Result | None:
        """Take a label, durably; None when it was taken, a result with the error when not."""
        try:
            label = self._label(service, device, payload, at or self.clock.now())
        except BadInput as error:
            self._stats.feedback_refused(service)
            unknown = isinstance(error, UnknownSample | UnknownService)
            return self._refused(service, device, payload, str(error), "unknown" if unknown else "feedback")
        try:
            if self._spool.append(label):
                self._tally(label)
        except (SpoolFull, SpoolFailed) as error:
            _not_taken(label, error)
            busy = "the node cannot keep the label now: send it again later"
            return self._refused(service, device, payload, busy, "not_ready")
        return None

    def _refused(self, service: str, device: str, payload: bytes, error: str, outcome: str) -> Result:
        name, error = named_sample(payload), error[:LONGEST_ERROR]
        return Result(service, device, self._node, self.clock.stamp(), name, error=error, outcome=outcome)

    def _label(self, service: str, device: str, payload: bytes, at: datetime) -> Label:
        if service not in self._stats.services:
            raise UnknownService(f"this node does not serve {service[:80]}: see its node.yaml")
        given = parse_feedback(payload)
        loaded = self._runtime.loaded(service)
        if loaded is not None:
            check_label(loaded.config, given.label)
        if not (self._grouped or self._is_captured(given.sample_id)):
            raise UnknownSample(
                f"sample {given.sample_id} was not captured here: send feedback for results that say captured"
            )
        return Label(
            sample_id=given.sample_id, service=service, label=given.label, source="device", by=given.by or device, at=at
        )

    def _is_captured(self, name: str) -> bool:
        result = self._once.result(name)
        return bool(result and result.captured) or self._spool.is_known(name)

    def _tally(self, label: Label) -> None:
        """Count what a device says of an audited answer of what serves: the node's own estimate of its accuracy."""
        result, loaded = self._once.result(label.sample_id), self._runtime.loaded(label.service)
        if result is None or loaded is None:
            return
        if result.selected_by == "audit" and result.model == loaded.release:
            self._stats.audited(label.service, label.sample_id, agreed=result.prediction == label.label)


def _done(outcome: Outcome) -> Callable[[], Outcome]:
    return lambda: outcome


def _not_taken(record: Sample | Label, error: EdgeloopError) -> bool:
    _log.warning("not captured", extra={"service": record.service, "error": str(error)})
    return False
