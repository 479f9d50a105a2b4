"""Whether a round may learn from pseudo-labels, and from which model it starts: stopped by the audit, not by hope.

A model that learns from its own answers can talk itself into its errors, and answers that look better each round are
no proof. So each round compares a champion that learned from pseudo-labels with the last one that did not, on audited
gate samples that came since and that neither has seen. If it is surely worse, pseudo-labels stop until a person allows
them again, and training starts from that former champion. Nothing is promoted by this: the gate compares with what
serves, as ever.
"""

from __future__ import annotations

from typing import NamedTuple

from edgeloop.clients.models import UnknownBackbone, UnloadableModel
from edgeloop.clients.objects import ObjectMissing, ObjectStore
from edgeloop.learning.blobs import DamagedBlob
from edgeloop.learning.drift.accuracy import confidence_sequence
from edgeloop.learning.evaluate import encode_truth, predict
from edgeloop.learning.features import KnownSpace
from edgeloop.learning.labels.vectors import champion_space
from edgeloop.learning.pool import old_members, sample_rows, unusable
from edgeloop.learning.train import Base, load_candidate
from edgeloop.samples.dataset import DatasetVersion, Member, UnknownDataset, dataset_members
from edgeloop.samples.service import Service
from edgeloop.samples.table import Tables, one_of
from edgeloop.store import FleetStore

#: The event of these rows in the ledger; their verdicts are ``off`` and ``on``.
EVENT = "pseudo"


class Duel(NamedTuple):
    """Two models on the same fresh audit samples."""

    samples: int
    won: int
    """Samples that only the champion answered rightly."""
    lost: int
    """Samples that only its predecessor answered rightly."""


def is_stopped(fleet: FleetStore, service: str) -> bool:
    """Whether the audit stopped pseudo-labels and nobody has allowed them since."""
    row = fleet.newest(service, EVENT)
    return row is not None and row["verdict"] == "off"


def allow(fleet: FleetStore, service: Service, by: str) -> bool:
    """Allow pseudo-labels again, in the name of ``by``; False where nothing had stopped them. Idempotent.

    The champion that they were stopped for is not held against them again; the next one that learns from them may be.
    """
    row = fleet.newest(service.name, EVENT)
    if row is None or row["verdict"] != "off":
        return False
    reason = f"{by} allows pseudo-labels again after version {row['version']}"
    return fleet.record(
        service.name, EVENT, f"on {row['key']}", verdict="on", reason=reason, version=row["version"], who=by
    )


def with_pseudo_rules(
    store: ObjectStore,
    tables: Tables,
    fleet: FleetStore,
    service: Service,
    dataset: DatasetVersion,
    base: Base,
) -> Base:
    """The champion with what follows from the audit: whether it may give labels, and where training starts. Idempotent.

    Args:
        store: has the candidates that were champions.
        tables: of the service.
        fleet: its ledger says whether pseudo-labels are stopped, and is told when they are.
        service: has the rules.
        dataset: its gate samples judge.
        base: the champion.
    """
    clean = last_clean(store, service.name, base)
    if clean is not None and fleet.entry(service.name, EVENT, str(base.key)) is None:
        duel = fresh_duel(store, tables, service, dataset, base, clean)
        if duel is not None and is_worse(duel, service.labelling.pseudo.alpha):
            _stop(fleet, service, base, clean, duel)
    stopped = is_stopped(fleet, service.name)
    return base.model_copy(
        update={
            "pseudo": service.labelling.pseudo.enabled and not stopped,
            "start": clean if stopped else None,
        }
    )


def _stop(fleet: FleetStore, service: Service, base: Base, clean: Base, duel: Duel) -> None:
    fleet.record(
        service.name,
        EVENT,
        str(base.key),
        verdict="off",
        reason=(
            f"version {base.version} learned from pseudo-labels; of {duel.samples} fresh audit samples it alone answers"
            f" {duel.won} rightly and version {clean.version}, the last without them, {duel.lost}: training starts"
            f" from that; allow them again with  edgeloop label {service.name} --allow-pseudo --by NAME"
        ),
        version=base.version,
        former=clean.version,
        dataset=base.dataset,
        who="audit",
    )


def last_clean(store: ObjectStore, service: str, base: Base) -> Base | None:
    """The last champion before ``base`` that learned from no pseudo-labels; None where ``base`` is one itself.

    A version whose candidate is not recorded counts as one: it was made by hand, or before there were any.
    """
    found = base
    while found.key is not None:
        made = load_candidate(store, service, found.key)
        if made is None or made.base is None or not made.trained_on.get("pseudo", 0):
            break
        found = made.base
    return None if found is base else found.model_copy(update={"start": None, "pseudo": False})


def is_worse(duel: Duel, alpha: float) -> bool:
    """Whether the champion is surely worse than its predecessor, however often one looks.

    Of samples that just one of them answers rightly, a champion that is no worse wins half or more (McNemar 1947). It
    is worse if a confidence sequence of that share, which holds at all counts at once, is below a half.
    """
    return confidence_sequence(duel.won, duel.won + duel.lost, alpha)[1] < 0.5


def fresh_duel(
    store: ObjectStore, tables: Tables, service: Service, dataset: DatasetVersion, champion: Base, former: Base
) -> Duel | None:
    """Both on the audited gate samples that people labelled since the champion was judged.

    Those that judged it would flatter it: it was promoted for what it said of them. None where one cannot be loaded,
    which the round will say.
    """
    try:
        members = _fresh(store, tables, service, dataset, champion, former)
        rows = sample_rows(tables, [m.sample_id for m in members])
        ordered = [rows[m.sample_id] for m in members]
        right = [
            predict(store, service, one.layers, ordered) == encode_truth(service, [m.label for m in members])
            for one in (champion, former)
        ]
    except (DamagedBlob, ObjectMissing, UnknownBackbone, UnknownDataset, UnloadableModel):
        return None
    return Duel(len(members), int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum()))


def _fresh(
    store: ObjectStore, tables: Tables, service: Service, dataset: DatasetVersion, champion: Base, former: Base
) -> list[Member]:
    seen = old_members(store, tables, service.name, champion.dataset)
    members = [
        m
        for m in dataset_members(store, tables, dataset).of("gate").listed()
        if m.selected_by == "audit"
        and m.source == "human"
        and m.sample_id not in seen
        and service.label_fault(m.label) is None
    ]
    ids = [m.sample_id for m in members]
    spaces: list[KnownSpace | None] = [champion_space(store, one.layers) for one in (champion, former)]
    faults = {name for space in spaces for name in unusable(store, tables, ids, space)}
    return _firsts(tables, [m for m in members if m.sample_id not in faults])


def _firsts(tables: Tables, members: list[Member]) -> list[Member]:
    """The first member of each group, in the order of capture: frames of one session are no independent witnesses."""
    names = ["sample_id", "group", "captured_at"]
    rows = tables.read("samples", names, where=one_of("sample_id", [m.sample_id for m in members]))
    ordered = sorted(rows, key=lambda r: (r["captured_at"], r["sample_id"]))
    first = {r["group"]: r["sample_id"] for r in reversed(ordered)}
    chosen = set(first.values())
    return [m for m in members if m.sample_id in chosen]
