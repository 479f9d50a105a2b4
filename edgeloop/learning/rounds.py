"""One round of learning: what it starts from, whether there is anything to do, and what follows from the verdict."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import BaseModel

from edgeloop.clients.objects import ObjectStore
from edgeloop.clients.registry import ForeignVersion, ModelRegistry, ModelVersion
from edgeloop.errors import EdgeloopError
from edgeloop.learning.evaluate import Evaluation
from edgeloop.learning.gate_models import DamagedChampion, champion_damage, check_champion
from edgeloop.learning.pseudo.switch import with_pseudo_rules
from edgeloop.learning.train import Base, Candidate, Mode, choose_mode, round_key
from edgeloop.samples.dataset import DatasetVersion, dataset_members, former_members, freeze, hold_labels
from edgeloop.samples.records import canonical, digest
from edgeloop.samples.service import Service
from edgeloop.samples.table import Tables
from edgeloop.store import FleetStore


class NothingJudged(EdgeloopError):
    """A round without a judgement cannot promote."""


class Plan(BaseModel):
    """What a round will do, fixed before it does it, so that a round that was cut off does the same again."""

    service: str
    dataset: DatasetVersion
    base: Base | None
    mode: str
    seed: int
    key: str
    skip: str | None = None
    """Why nothing is trained, if nothing is."""
    damage: str | None = None
    """Why there is nothing to start from or to compare with: the champion cannot be loaded. ``skip`` says so too."""


class Promotion(BaseModel):
    """What the gate's verdict led to."""

    promoted: bool
    verdict: str
    reason: str
    version: str
    """MLflow version of the candidate; ``none`` where there was nothing to register."""
    former: str | None
    held: int = 0
    """Labels set aside because the candidate that learned from them did harm."""


def plan_round(
    store: ObjectStore,
    tables: Tables,
    registry: ModelRegistry,
    fleet: FleetStore,
    service: Service,
    mode: Mode = "auto",
    seed: int | None = None,
) -> Plan:
    """Freeze the dataset and find the champion to start from; ``skip`` says why nothing needs training.

    A champion that cannot be loaded stays champion: the plan says what is wrong with it, see :func:`end_round`.

    Raises:
        BadInput: the mode does not fit the service.
        RegistryUnavailable, StoreUnavailable, TableUnavailable: run again.
    """
    try:
        champion = registry.champion(service.name)
    except ForeignVersion as error:
        dataset = freeze(store, tables, service.name)
        return _no_start(service, dataset, None, mode, f"the champion cannot be loaded ({error})")
    base = base_of(champion) if champion else None
    if champion:
        _complete_ledger(fleet, champion)
    dataset = freeze(store, tables, service.name)
    try:
        if base:
            with champion_damage(service, base):
                base = with_pseudo_rules(store, tables, fleet, service, dataset, base)
    except DamagedChampion as error:
        return _no_start(service, dataset, base, mode, str(error))
    chosen = choose_mode(service, mode, base)
    number = service.trainer.seed if seed is None else seed
    key = round_key(service, dataset.id, base, chosen, number)
    plan = Plan(service=service.name, dataset=dataset, base=base, mode=chosen, seed=number, key=key)
    skip = _why_skip(fleet, plan, asked=mode)
    if skip or base is None:
        return plan.model_copy(update={"skip": skip})
    try:
        check_champion(store, service, base, chosen)
    except DamagedChampion as error:
        return _damaged(plan, str(error))
    return plan


def base_of(champion: ModelVersion) -> Base:
    """The champion as what a round starts from."""
    return Base(version=champion.version, dataset=champion.dataset, layers=champion.layers, key=champion.key)


def _no_start(service: Service, dataset: DatasetVersion, base: Base | None, mode: Mode, damage: str) -> Plan:
    """The plan of a round whose champion does not even say what the round is."""
    plan = Plan(service=service.name, dataset=dataset, base=base, mode=mode, seed=service.trainer.seed, key="")
    return _damaged(plan, damage)


def _damaged(plan: Plan, damage: str) -> Plan:
    """Such a round has a name of its own: once the champion is mended, the same data can be judged."""
    key = digest(canonical(["damaged", plan.service, plan.dataset.id, plan.key, damage]))
    return plan.model_copy(update={"key": key, "damage": damage, "skip": f"inconclusive: {damage}"})


def end_round(fleet: FleetStore, plan: Plan, damage: str) -> Promotion:
    """End a round in which nothing could be judged: one row in the ledger, and the champion stays. Idempotent.

    The row names no dataset, since none was judged.
    """
    fleet.record(
        plan.service,
        "gate",
        (plan if plan.damage else _damaged(plan, damage)).key,
        verdict="inconclusive",
        reason=damage,
        former=plan.base.version if plan.base else None,
        who="gate",
    )
    former = plan.base.version if plan.base else None
    return Promotion(promoted=False, verdict="inconclusive", reason=damage, version="none", former=former)


def _complete_ledger(fleet: FleetStore, champion: ModelVersion) -> None:
    """Write the row of a promotion that was cut off between the alias and the ledger; the first row wins."""
    fleet.record(
        champion.service,
        "gate",
        champion.key,
        verdict="pass",
        reason="promoted; the round that did it was cut off before it could say why",
        version=champion.version,
        dataset=champion.dataset,
        who="gate",
    )


def _why_skip(fleet: FleetStore, plan: Plan, asked: Mode) -> str | None:
    if plan.dataset.counts["pool"] == 0:
        return "no labelled samples to learn from yet"
    judged = fleet.entry(plan.service, "gate", plan.key)
    if judged:
        return f"no new data since this dataset was judged: {judged['verdict']}, {judged['reason']}"
    if asked == "auto" and plan.base and plan.base.dataset == plan.dataset.id:
        return f"no new data since version {plan.base.version}"
    return None


def promote(
    store: ObjectStore,
    tables: Tables,
    registry: ModelRegistry,
    fleet: FleetStore,
    service: Service,
    plan: Plan,
    candidate: Candidate,
    evaluation: Evaluation,
    version: ModelVersion,
) -> Promotion:
    """Move the alias ``champion`` if the gate passed; set the new labels aside if the candidate did harm. Idempotent.

    Nothing is promoted over a champion that the candidate was not compared with: where the alias was moved while the
    round ran, the verdict is inconclusive. The ledger row is written last: until it is there, a repeated call does the
    same again, and after that it says what was done.

    Raises:
        NothingJudged: the evaluation says that a model could not be loaded; see :func:`end_round`.
    """
    if evaluation.damage:
        raise NothingJudged(f"round {plan.key} of {service.name} was not judged ({evaluation.damage}): end it instead")
    decision = evaluation.decision
    former = plan.base.version if plan.base else None
    told = fleet.entry(service.name, "gate", plan.key)
    moved = _moved(registry, plan, version, told) if decision.verdict == "pass" else None
    verdict, reason = ("inconclusive", moved) if moved else (decision.verdict, decision.reason)
    held = 0
    if verdict == "pass" and not told:
        registry.set_champion(service.name, version.version)
    elif decision.harmful and plan.base:
        held = _hold_new_labels(store, tables, fleet, service, plan, decision.reason)
    fleet.record(
        service.name,
        "gate",
        plan.key,
        verdict="harmful" if decision.harmful else verdict,
        reason=reason,
        version=version.version,
        former=former,
        dataset=plan.dataset.id,
        who="gate",
    )
    return Promotion(
        promoted=verdict == "pass",
        verdict=verdict,
        reason=reason,
        version=version.version,
        former=former,
        held=held,
    )


def _moved(registry: ModelRegistry, plan: Plan, version: ModelVersion, told: dict[str, Any] | None) -> str | None:
    """Why the round's ``version`` may not become champion: another one did since the plan; None if it may, or did.

    ``told`` is the round's row in the ledger, where it has one.
    """
    if told:
        return None if told["verdict"] == "pass" else str(told["reason"])
    former = plan.base.version if plan.base else None
    try:
        champion = registry.champion(plan.service)
        current = champion.version if champion else None
    except ForeignVersion as error:
        current = f"one that cannot be loaded ({error})"
    if current in (former, version.version):
        return None
    return f"the champion changed meanwhile from {former or 'none'} to {current or 'none'}: run retrain again"


def _hold_new_labels(
    store: ObjectStore, tables: Tables, fleet: FleetStore, service: Service, plan: Plan, reason: str
) -> int:
    """Hold the untrusted labels that came since the last dataset that was judged and did no harm."""
    judged = fleet.last_judged(service.name, harmless=True)
    innocent = {str(judged["dataset"])} if judged else set()
    innocent |= {plan.base.dataset} if plan.base else set()
    known = set().union(*(_labels_of(store, tables, service.name, name) for name in innocent))
    members = dataset_members(store, tables, plan.dataset)
    untrusted = members.where(~members.among("source", service.gate.trust)).listed()
    return hold_labels(tables, [m for m in untrusted if (m.sample_id, m.label) not in known], reason)


def _labels_of(store: ObjectStore, tables: Tables, service: str, dataset: str) -> set[tuple[str, str]]:
    """Who was in an earlier dataset version, with which label."""
    members = former_members(store, tables, service, dataset)
    return set(zip(members.ids, members.column("label"), strict=True))


class RoundRecord(BaseModel):
    """What one pass of the loop did: kept in the object store for reports, people and the demo."""

    id: str
    """The flow run that it was."""
    service: str
    reason: str
    at: datetime
    seconds: dict[str, float]
    """Wall time by stage."""
    samples: int = 0
    """New samples ingested."""
    duplicates: int = 0
    labels: int = 0
    accepted: int = 0
    quarantined: int = 0
    skip: str | None = None
    """Why nothing was trained."""
    mode: str | None = None
    trained_on: dict[str, int] = {}
    evaluation: Evaluation | None = None
    promotion: Promotion | None = None
    champion: str | None = None
    """MLflow version that is champion after the round."""
    release: str | None = None
    rollout: str | None = None
    """State of the rollout when the round ended."""
    compute_seconds: float = 0.0
    """Time spent in training itself."""


def round_record_key(service: str, name: str) -> str:
    """Object key of a round's record."""
    return f"rounds/{service}/{name}.json"


def save_round(store: ObjectStore, record: RoundRecord) -> None:
    """Write a round's record; a repeated write replaces it."""
    store.put(round_record_key(record.service, record.id), record.model_dump_json().encode())


def load_round(store: ObjectStore, service: str, name: str) -> RoundRecord:
    """Read a round's record; raises ObjectMissing when there is none."""
    return RoundRecord.model_validate_json(store.get(round_record_key(service, name)))
