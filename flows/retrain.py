"""Retrain: make a candidate, judge it, register it, and promote it if it is better. Started by hand or by the loop."""

from __future__ import annotations

import time
from datetime import datetime

from prefect import flow, get_run_logger
from prefect.runtime import flow_run

from edgeloop.bootstrap import open_app
from edgeloop.errors import BadInput
from edgeloop.learning.rounds import Plan, RoundRecord, save_round
from edgeloop.learning.train import Mode
from edgeloop.samples.records import now
from flows.parameters import OneService, Reason, Seed, TrainingMode
from tasks.train import (
    end_unjudged,
    evaluate_candidate,
    plan_retrain,
    promote_candidate,
    register_candidate,
    train_candidate,
)


class Stopwatch:
    """Wall time by stage, in seconds."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.monotonic()

    def lap(self, stage: str) -> None:
        """Book the time since the last lap on ``stage``."""
        at = time.monotonic()
        self.seconds[stage] = self.seconds.get(stage, 0.0) + at - self._last
        self._last = at


@flow(name="retrain", flow_run_name="retrain-{service}: {reason}")
async def retrain(
    service: OneService, mode: TrainingMode = "auto", reason: Reason = "asked for by hand", seed: Seed = None
) -> RoundRecord:
    """Train a candidate for a service on everything labelled so far, and promote it only if the gate passes.

    Args:
        service: Name of the service to retrain, as in deployments/services/.
        mode: auto does what the service needs; head refits the head on frozen features, in seconds; full fine-tunes
            the whole backbone, in minutes to hours; sklearn refits the pipeline.
        reason: Why this runs, in 3 to 200 letters; it is kept with the model version.
        seed: Makes training repeatable, from 0 to 2147483647; empty takes the service's own.
    """
    record = learn(new_record(service, reason), Stopwatch(), mode, seed)
    save_round(open_app().store, record)
    return record


def new_record(service: str, reason: str) -> RoundRecord:
    """The record of the round that this flow run is."""
    started: datetime = now()
    return RoundRecord(id=str(flow_run.id or "local"), service=service, reason=reason, at=started, seconds={})


def learn(record: RoundRecord, watch: Stopwatch, mode: Mode, seed: int | None) -> RoundRecord:
    """Plan, train, evaluate, register and promote; returns ``record`` with what came of it."""
    log = get_run_logger()
    plan = plan_retrain(record.service, mode, seed)
    watch.lap("plan")
    champion = plan.base.version if plan.base else None
    if plan.damage:
        return _ended(record, watch, plan, plan.damage)
    if plan.skip:
        log.info("nothing to train: %s", plan.skip)
        return record.model_copy(update={"skip": plan.skip, "champion": champion, "seconds": watch.seconds})
    try:
        candidate = train_candidate(plan)
    except BadInput as error:  # of this service's data: the others' rounds go on
        return _ended(record, watch, plan, str(error))
    watch.lap("train")
    evaluation = evaluate_candidate(plan, candidate)
    watch.lap("evaluate")
    if evaluation.damage:
        return _ended(record, watch, plan, evaluation.damage)
    version = register_candidate(plan, candidate, evaluation, record.reason)
    watch.lap("register")
    promotion = promote_candidate(plan, candidate, evaluation, version)
    watch.lap("promote")
    log.info("version %s: %s, %s", version.version, promotion.verdict, promotion.reason)
    return record.model_copy(
        update={
            "mode": plan.mode,
            "trained_on": candidate.trained_on,
            "evaluation": evaluation,
            "promotion": promotion,
            "champion": version.version if promotion.promoted else champion,
            "compute_seconds": candidate.seconds,
            "seconds": watch.seconds,
        }
    )


def _ended(record: RoundRecord, watch: Stopwatch, plan: Plan, damage: str) -> RoundRecord:
    """The record of a round that could not be trained or judged: inconclusive, and the champion stays."""
    get_run_logger().warning("nothing was judged: %s", damage)
    evaluation, promotion = end_unjudged(plan, damage)
    watch.lap("end")
    found = {"mode": plan.mode, "evaluation": evaluation, "promotion": promotion, "champion": promotion.former}
    return record.model_copy(update=found | {"seconds": watch.seconds})
