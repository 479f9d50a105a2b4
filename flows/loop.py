"""The loop: one pass from what the nodes sent to what the nodes serve."""

from __future__ import annotations

from prefect import flow, get_run_logger

from edgeloop.ahead import import_ahead
from edgeloop.bootstrap import open_app
from edgeloop.learning.rounds import RoundRecord, save_round
from edgeloop.quality.ingest import something_waits
from flows.ingest import collect
from flows.parameters import EveryService, Reason, RolloutTimeout, run_name
from flows.retrain import Stopwatch, learn, new_record
from tasks.deploy import finish_rollout
from tasks.release import release_service


@flow(name="loop", flow_run_name=run_name)
async def loop(
    service: EveryService = None, reason: Reason = "scheduled", rollout_timeout: RolloutTimeout = 180
) -> list[RoundRecord]:
    """Ingest, validate, train, evaluate, register, promote, release and roll out, for one service or all.

    Args:
        service: Name of one service; empty for all of them.
        reason: Why this runs, in 3 to 200 letters; it is kept with the model version.
        rollout_timeout: Seconds (5 to 3600) to wait for the rollout before leaving it to the scheduled ticks.
    """
    return [one_round(name, reason, rollout_timeout) for name in ([service] if service else open_app().services())]


def one_round(service: str, reason: str, rollout_timeout: float) -> RoundRecord:
    """One pass of the loop for one service; with nothing new it trains nothing and says so."""
    watch = Stopwatch()
    record = new_record(service, reason)
    if something_waits(open_app().store, service):
        import_ahead("great_expectations.expectations", "sklearn.linear_model", "mlflow.pyfunc", "mlflow.sklearn")
    collected = collect(service)
    watch.lap("collect")
    record = record.model_copy(
        update={
            "samples": collected.ingested.samples,
            "duplicates": collected.ingested.duplicates,
            "labels": collected.ingested.labels,
            "accepted": collected.validated.accepted,
            "quarantined": collected.validated.quarantined + collected.ingested.rejected,
        }
    )
    record = learn(record, watch, "auto", None)
    save_round(open_app().store, record)  # the watch of a new champion asks what it was judged to be, maybe at once
    if record.evaluation is None or record.evaluation.damage is None:
        record = deliver(record, watch, rollout_timeout)
    save_round(open_app().store, record)
    get_run_logger().info("round of %s: %s", service, {k: round(v, 2) for k, v in record.seconds.items()})
    return record


def deliver(record: RoundRecord, watch: Stopwatch, rollout_timeout: float) -> RoundRecord:
    """Release the champion and roll it out, if that was not done before."""
    released = release_service(record.service)
    watch.lap("release")
    if released is None:
        return record.model_copy(update={"seconds": watch.seconds})
    state = released.state
    if state == "released":  # else it waits for somebody, and the scheduled reconciler goes on with it
        state = finish_rollout(record.service, rollout_timeout).state
        watch.lap("rollout")
    if state == "reverted":
        release_service(record.service)  # the alias leaves what the fleet refused, before the next round starts from it
    return record.model_copy(
        update={"champion": released.version, "release": released.release, "rollout": state, "seconds": watch.seconds}
    )
