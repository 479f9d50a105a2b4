"""What happens to one input, whichever way it came: predict, choose, keep, answer. Once, however often it is sent."""

from __future__ import annotations

import json
import logging
import math
import threading
import time
from collections import OrderedDict
from concurrent.futures import Future
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any

import numpy as np

from edgeloop.clients.models import Answer
from edgeloop.edge.runtime import Loaded, ModelFailed, NotLoaded, Runtime
from edgeloop.edge.selector import audit_draw, select
from edgeloop.edge.spool import Spool, SpoolFailed, SpoolFull
from edgeloop.edge.stats import Stats
from edgeloop.errors import BadInput
from edgeloop.samples.payloads import UndecodablePayload, canonical_features
from edgeloop.samples.records import Label, Sample, digest, now, sample_id
from edgeloop.samples.service import NodeConfig

_log = logging.getLogger(__name__)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DEFAULT_MAX_BYTES = 8_000_000
_LAST_YEAR = datetime(9000, 1, 1, tzinfo=UTC)


#: Errors that count as inputs of a service.
OUTCOMES = ("bad_input", "model_error", "not_ready")


class MalformedTime(BadInput):
    """A capture time is neither ISO 8601 nor microseconds since 1970."""


class UnknownService(BadInput):
    """This node does not serve the service."""


class MalformedFeedback(BadInput):
    """A feedback message does not say which sample is what."""


@dataclass(frozen=True)
class Result:
    """The answer to one input, as devices get it."""

    service: str
    device: str
    node: str
    at: str
    sample_id: str | None = None
    prediction: str | None = None
    confidence: float | None = None
    captured: bool = False
    selected_by: str | None = None
    model: str | None = None
    """Digest of the release that answered."""
    error: str | None = None
    outcome: str = "ok"
    """``ok``, one of the counted errors :data:`OUTCOMES`, ``unknown`` or ``feedback``; not sent."""

    def to_json(self) -> dict[str, Any]:
        """What is sent: with ``error``, or with the prediction."""
        fields = asdict(self)
        del fields["outcome"]
        if self.error is None:
            del fields["error"]
            return fields
        return {k: fields[k] for k in ("error", "sample_id", "service", "device", "node", "at")}

    def to_bytes(self) -> bytes:
        """:meth:`to_json`, encoded."""
        return json.dumps(self.to_json()).encode()


@dataclass(frozen=True)
class _Input:
    """One input on its way through the gateway."""

    service: str
    device: str
    payload: bytes
    at: datetime

    @cached_property
    def sample_id(self) -> str:
        return sample_id(self.service, self.device, self.at, self.payload)


def parse_time(text: str | None) -> datetime | None:
    """A capture time: ISO 8601 (UTC where no zone is given) or integer microseconds since 1970.

    Raises:
        MalformedTime: anything else.
    """
    if not text:
        return None
    try:
        if text.isascii() and text.lstrip("-").isdigit():
            at = _EPOCH + timedelta(microseconds=int(text))
        else:
            at = datetime.fromisoformat(text)
            at = at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise MalformedTime(f"captured-at is {text[:80]!r}: send ISO 8601 or microseconds since 1970") from error
    if not _EPOCH <= at < _LAST_YEAR:
        raise MalformedTime(f"captured-at is {text[:80]!r}: send a time after 1970 and before 9000")
    return at


class Gateway:
    """Answers inputs and takes feedback. Methods may be called from any thread."""

    def __init__(
        self, node: str, runtime: Runtime, spool: Spool, stats: Stats, salt: bytes, *, remember: int = 10_000
    ) -> None:
        self._node = node
        self._runtime = runtime
        self._spool = spool
        self._stats = stats
        self._salt = salt
        self._remember = remember
        self._lock = threading.Lock()
        self._results: OrderedDict[str, Future[Result]] = OrderedDict()

    def handle(self, service: str, device: str, payload: bytes, captured_at: datetime | None = None) -> Result:
        """Answer one input; if it was chosen, it is durable when this returns. Errors are results too.

        The same input with the same ``captured_at`` gets the same result and is counted and captured once.
        """
        given = _Input(service, device, payload, captured_at or now())
        try:
            asked = replace(given, payload=self._canonical(service, payload))
        except UnknownService as error:
            return self._error(given, str(error), "unknown")
        except NotLoaded as error:
            return self._error(given, str(error), "not_ready")
        except UndecodablePayload as error:
            return self._error(given, str(error), "bad_input")
        future, is_first = self._claim(asked.sample_id)
        return self._settle(asked, future) if is_first else future.result()

    def _canonical(self, service: str, payload: bytes) -> bytes:
        if service not in self._stats.services:
            raise UnknownService(f"this node does not serve {service}: see its node.yaml")
        loaded = self._runtime.loaded(service)
        if loaded is None:
            raise NotLoaded(f"service {service} has no release on this node yet: roll one out to its ring")
        return canonical_payload(loaded.config, payload)

    def _claim(self, name: str) -> tuple[Future[Result], bool]:
        with self._lock:
            known = self._results.get(name)
            if known is not None:
                return known, False
            future: Future[Result] = Future()
            self._results[name] = future
            while len(self._results) > self._remember:
                self._results.popitem(last=False)
            return future, True

    def _settle(self, asked: _Input, future: Future[Result]) -> Result:
        try:
            result = self._answer(asked)
        except BaseException as error:
            self._forget(asked.sample_id)
            future.set_exception(error)
            raise
        if result.outcome in {"model_error", "not_ready"}:  # sent again, it may go better
            self._forget(asked.sample_id)
        future.set_result(result)
        return result

    def _forget(self, name: str) -> None:
        with self._lock:
            self._results.pop(name, None)

    def _answer(self, asked: _Input) -> Result:
        started = time.perf_counter()
        try:
            answer, loaded = self._runtime.predict(asked.service, asked.payload)
        except UndecodablePayload as error:
            return self._error(asked, str(error), "bad_input")
        except ModelFailed as error:
            _log.error("a model failed", extra={"service": asked.service, "error": str(error)})
            return self._error(asked, str(error), "model_error")
        seconds = time.perf_counter() - started
        selected_by = self._spool.selected(asked.sample_id)
        captured = selected_by is not None
        if not captured:
            captured, selected_by = self._choose(asked, answer, loaded)
            self._stats.answered(asked.service, seconds, answer.confidence)
        return Result(
            service=asked.service,
            device=asked.device,
            node=self._node,
            at=now().isoformat(),
            sample_id=asked.sample_id,
            prediction=answer.prediction,
            confidence=answer.confidence,
            captured=captured,
            selected_by=selected_by,
            model=loaded.release,
        )

    def _choose(self, asked: _Input, answer: Answer, loaded: Loaded) -> tuple[bool, str | None]:
        """Returns (captured, selected_by)."""
        draw = audit_draw(self._salt, asked.sample_id)
        choice = select(answer.confidence, loaded.config.selection, draw)
        if choice.selected_by is None:
            return False, None
        embedding = None if answer.embedding is None else answer.embedding.astype(np.dtype("<f2")).tobytes()
        sample = Sample(
            sample_id=asked.sample_id,
            service=asked.service,
            device=asked.device,
            node=self._node,
            captured_at=asked.at,
            payload=asked.payload,
            embedding=embedding,
            backbone_digest=loaded.model.backbone_digest,
            model_digest=loaded.release,
            prediction=answer.prediction,
            confidence=answer.confidence,
            selected_by=choice.selected_by,
            selection_probability=choice.probability,
            group=digest(asked.payload),
        )
        taken = self._take(sample)
        self._stats.captured(asked.service, choice.selected_by, taken=taken)
        return taken, choice.selected_by

    def _take(self, record: Sample | Label) -> bool:
        try:
            self._spool.append(record)
        except (SpoolFull, SpoolFailed) as error:
            _log.warning("not captured", extra={"service": record.service, "error": str(error)})
            return False
        return True

    def _error(self, asked: _Input, error: str, outcome: str) -> Result:
        """A result with an error, counted unless it is about a service that is not here."""
        if outcome in OUTCOMES:
            self._stats.failed(asked.service, outcome)
        at = now().isoformat()
        return Result(asked.service, asked.device, self._node, at, asked.sample_id, error=error, outcome=outcome)

    def reject(self, service: str, device: str, error: str) -> Result:
        """The result of an input that could not be taken at all."""
        outcome = "bad_input" if service in self._stats.services else "unknown"
        return replace(self._error(_Input(service, device, b"", now()), error, outcome), sample_id=None)

    def feedback(self, service: str, device: str, payload: bytes, at: datetime | None = None) -> Result | None:
        """Take a label, durably; None when it was taken, a result with the error when not."""
        name = None
        try:
            value = _feedback(payload)
            name = value["sample_id"]
            label = self._label(service, device, value, at or now())
        except BadInput as error:
            problem = str(error)
        else:
            if self._take(label):
                return None
            problem = "the node cannot keep the label now: send it again later"
        return Result(service, device, self._node, now().isoformat(), name, error=problem, outcome="feedback")

    def _label(self, service: str, device: str, value: dict[str, str], at: datetime) -> Label:
        loaded = self._runtime.loaded(service)
        if service not in self._stats.services:
            raise UnknownService(f"this node does not serve {service}: see its node.yaml")
        if loaded is not None:
            check_label(loaded.config, value["label"])
        return Label(
            sample_id=value["sample_id"],
            service=service,
            label=value["label"],
            source="device",
            by=value.get("by") or device,
            at=at,
        )


def canonical_payload(config: NodeConfig, payload: bytes) -> bytes:
    """The payload as it is kept: images as they came, feature rows as canonical JSON in the model's order.

    Raises:
        UndecodablePayload: too large, or no feature row.
    """
    limit = config.image.max_bytes if config.image else _DEFAULT_MAX_BYTES
    if len(payload) > limit:
        raise UndecodablePayload(f"payload has {len(payload)} bytes and may have {limit}: send a smaller one")
    if config.kind == "image-classifier":
        return payload
    return canonical_features(payload, config.feature_names)


def check_label(config: NodeConfig, label: str) -> None:
    """Raise MalformedFeedback unless ``label`` can be an answer of this service."""
    if config.labels is not None:
        if label not in config.labels:
            raise MalformedFeedback(f"label is {label[:80]!r}: send one of {', '.join(config.labels)}")
        return
    try:
        fine = math.isfinite(float(label))
    except ValueError:
        fine = False
    if not fine:
        raise MalformedFeedback(f"label is {label[:80]!r}: send a finite number")


def _feedback(payload: bytes) -> dict[str, str]:
    try:
        value = json.loads(payload)
        name, label, by = value["sample_id"], value["label"], value.get("by")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise MalformedFeedback('feedback is not {"sample_id": …, "label": …}: send that as JSON') from error
    if isinstance(label, int | float) and not isinstance(label, bool):
        label = repr(label)
    if not _is_text(label) or (by is not None and not _is_text(by)):
        raise MalformedFeedback("label or by is not a text of at most 200 characters: send one")
    if not isinstance(name, str) or len(name) != 64 or set(name) - set("0123456789abcdef"):
        raise MalformedFeedback(f"sample_id is {name!r:.80}: send the one of the result")
    return {"sample_id": name, "label": label} | ({"by": by} if by else {})


def _is_text(value: object) -> bool:
    # A lone surrogate is a str that no file can hold.
    return isinstance(value, str) and len(value) <= 200 and value.isprintable()
