"""The twin as a promotion asks for it: one word for all hardware profiles of a service."""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence

from edgeloop.samples.profiles import Profile
from edgeloop.samples.releases import parse_release, release_key
from edgeloop.samples.service import Service
from edgeloop.twin.kept import Rehearsal, keep_list
from edgeloop.twin.records import Outcome, terms_of
from edgeloop.twin.run import Parts, rehearse

_WORST_FIRST: tuple[Outcome, ...] = ("fail", "inconclusive", "pass")


class Twin:
    """Rehearses releases.

    Args:
        profiles: those that a release of a service is rehearsed for; never empty.
    """

    def __init__(self, parts: Parts, profiles: Callable[[Service], Sequence[Profile]]) -> None:
        self._parts = parts
        self._profiles = profiles

    def outcome(self, service: Service, release: str) -> Outcome | None:
        """The worst of the newest outcomes, one of each profile; None while a profile has none by today's budgets."""
        words = [found.outcome if found else None for found in self._newest(service, release)]
        if "fail" in words:
            return "fail"
        return None if None in words else min((w for w in words if w), key=_WORST_FIRST.index)

    def rehearse(self, service: Service, release: str) -> Outcome:
        """Rehearse for each profile that has no outcome yet, up to the first that fails."""
        data = self._parts.store.get(release_key(service.name, release))
        manifest = parse_release(data, release)
        worst: Outcome = "pass"
        for profile in self._profiles(service):
            word = rehearse(self._parts, service, manifest, profile).outcome
            worst = min(worst, word, key=_WORST_FIRST.index)
            if worst == "fail":
                break
        return worst

    def report(self, service: Service, release: str) -> str | None:
        """Digest of the report that :meth:`outcome` goes by; of several, of a blob with their digests by profile.

        One, because every node reads what is said beside an approval with every new release.
        """
        found = {one.profile: one.report for one in self._newest(service, release) if one}
        return keep_list(self._parts.store, found) if len(found) > 1 else next(iter(found.values()), None)

    def _newest(self, service: Service, release: str) -> list[Rehearsal | None]:
        rules, kept = service.delivery.twin, self._parts.rehearsals
        return [kept.newest(release, p.name, terms_of(p, rules)) for p in self._profiles(service)]


def usual_profile() -> str:
    """Name of the profile whose budgets hold for a service that names none: one of machines like this one."""
    return "generic-arm64" if platform.machine() == "aarch64" else "generic-amd64"
