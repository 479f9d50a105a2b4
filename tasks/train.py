"""Train: from accepted samples to a judged and registered candidate."""

from __future__ import annotations

from prefect import get_run_logger, task
from prefect.artifacts import create_markdown_artifact

from edgeloop.bootstrap import open_app
from edgeloop.clients.registry import ModelVersion
from edgeloop.learning.evaluate import Evaluation, evaluate, unjudged
from edgeloop.learning.gate_text import decision_text
from edgeloop.learning.register import register
from edgeloop.learning.rounds import Plan, Promotion, end_round, plan_round, promote
from edgeloop.learning.train import Candidate, Mode, train
from tasks.progress import Training


@task(name="plan", task_run_name="plan-{service}", retries=2, retry_delay_seconds=[2, 10], tags=["edgeloop"])
def plan_retrain(service: str, mode: Mode, seed: int | None) -> Plan:
    """Freeze the dataset version and decide whether there is anything to learn."""
    app = open_app()
    return plan_round(app.store, app.tables(service), app.registry, app.fleet, app.service(service), mode, seed)


@task(name="train", task_run_name="train-{plan.service}", tags=["edgeloop"])
def train_candidate(plan: Plan) -> Candidate:
    """Make the candidate. Not retried: what fails here fails again. Run again after a kill, it goes on."""
    app = open_app()
    with Training(plan.service, get_run_logger()) as progress:
        return train(
            app.store,
            app.tables(plan.service),
            app.service(plan.service),
            plan.dataset,
            plan.base,
            plan.mode,
            plan.seed,
            progress,
            app.settings.home.absolute() / "training",
        )


@task(name="evaluate", task_run_name="evaluate-{plan.service}", tags=["edgeloop"])
def evaluate_candidate(plan: Plan, candidate: Candidate) -> Evaluation:
    """Score candidate and champion on the locked gate samples."""
    app = open_app()
    return evaluate(app.store, app.tables(plan.service), app.service(plan.service), plan.dataset, candidate, app.fleet)


@task(
    name="register", task_run_name="register-{plan.service}", retries=2, retry_delay_seconds=[2, 10], tags=["edgeloop"]
)
def register_candidate(plan: Plan, candidate: Candidate, evaluation: Evaluation, reason: str) -> ModelVersion:
    """Log the candidate to MLflow, whatever the gate says of it."""
    app = open_app()
    return register(
        app.store,
        app.tables(plan.service),
        app.registry,
        app.service(plan.service),
        plan.dataset,
        candidate,
        evaluation,
        reason,
    )


@task(name="promote", task_run_name="promote-{plan.service}", retries=2, retry_delay_seconds=[2, 10], tags=["edgeloop"])
def promote_candidate(plan: Plan, candidate: Candidate, evaluation: Evaluation, version: ModelVersion) -> Promotion:
    """Move the alias ``champion`` if the gate passed, and publish the decision."""
    app = open_app()
    service = app.service(plan.service)
    result = promote(
        app.store, app.tables(plan.service), app.registry, app.fleet, service, plan, candidate, evaluation, version
    )
    done = {"verdict": result.verdict, "reason": result.reason}  # not what the gate said if the champion changed
    said = evaluation.model_copy(update={"decision": evaluation.decision.model_copy(update=done)})
    text = decision_text(said, service.gate, result.version, result.former, result.held)
    _publish(plan.service, text)
    return result


@task(name="end", task_run_name="end-{plan.service}", retries=2, retry_delay_seconds=[2, 10], tags=["edgeloop"])
def end_unjudged(plan: Plan, damage: str) -> tuple[Evaluation, Promotion]:
    """End a round that could not be trained or judged: a row in the ledger, and the decision for people."""
    app = open_app()
    service = app.service(plan.service)
    evaluation = unjudged(service, plan.key, damage)
    result = end_round(app.fleet, plan, damage)
    text = decision_text(evaluation, service.gate, result.version, result.former)
    _publish(plan.service, text)
    return evaluation, result


def _publish(service: str, text: str) -> None:
    create_markdown_artifact(markdown=text, key=f"gate-{service}", description="Decision of the gate")
