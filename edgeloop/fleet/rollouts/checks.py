"""Whether a rollout can be followed at all: asked before anything is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from edgeloop.errors import BadInput
from edgeloop.fleet.rollouts.states import is_whole
from edgeloop.fleet.rollouts.windows import check_windows
from edgeloop.samples.releases import NoVariant, Release
from edgeloop.samples.service import Service

#: Nodes that are named in a message.
_NAMED = 3


class BadStrategy(BadInput):
    """The section ``rollout`` of a service asks for what cannot be had."""


def check_strategy(service: Service, at: datetime) -> None:
    """Refuse what cannot work.

    Raises:
        BadStrategy: a ring that the service does not have, or batches where the target counts no nodes.
        BadWindow: a window that never opens, or begins in a gap of summer time.
    """
    strategy = service.rollout
    unknown = sorted(set(strategy.rings) - set(service.rings))
    if unknown:
        raise BadStrategy(
            f"{service.name}: rollout.rings names ring {unknown[0]}, rings are {service.rings}: name one of them"
        )
    if strategy.target != "agent":
        _check_cluster(service)
    for windows in [strategy.windows, *(step.windows or [] for step in strategy.rings.values())]:
        check_windows(windows, at)


def check_variants(release: Release, profiles: Mapping[str, Sequence[str]]) -> None:
    """Refuse a release that nodes would refuse.

    Args:
        profiles: names of the nodes of each hardware profile.

    Raises:
        NoVariant: it has variants, and none for one of the profiles.
    """
    for profile, names in profiles.items():
        try:
            release.layers_for(profile)
        except NoVariant as error:
            some = ", ".join(names[:_NAMED]) + (" …" if len(names) > _NAMED else "")
            raise NoVariant(f"{len(names)} node{'s' * (len(names) != 1)} ({some}): {error}") from None


def _check_cluster(service: Service) -> None:
    strategy = service.rollout
    wanted = [("batches", strategy.batches), *((f"rings.{n}.batches", s.batches) for n, s in strategy.rings.items())]
    for field, batches in wanted:
        if batches and not is_whole(batches):
            raise BadStrategy(
                f"{service.name}: rollout.{field} {batches} is for target agent, not {strategy.target}: leave it out"
            )
    if strategy.thresholds.require_accuracy:
        raise BadStrategy(
            f"{service.name}: rollout.thresholds.require_accuracy is for target agent: nobody labels what pods of"
            f" {strategy.target} answer, leave it out"
        )
    if strategy.per_hour is not None:
        raise BadStrategy(f"{service.name}: rollout.per_hour is for target agent, not {strategy.target}: leave it out")
