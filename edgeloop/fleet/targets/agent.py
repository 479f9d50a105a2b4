"""Nodes that follow the signed channel: a ring is told what to run by one record, whatever its size."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from edgeloop.clients.broker import Broker, BrokerUnavailable
from edgeloop.fleet.channel import NotApproved, Pointing, Rings
from edgeloop.fleet.targets.protocol import Diff, Observed, Outcome, Wave
from edgeloop.samples import releases
from edgeloop.samples.releases import Wanted
from edgeloop.samples.topics import wanted_topic

_log = logging.getLogger(__name__)


class AgentTarget:
    """The channel as a target. Nodes say by themselves how far they are."""

    name = "agent"

    def __init__(self, channel: Rings, broker: Broker | None = None) -> None:
        self._channel = channel
        self._broker = broker

    def refuse_unapproved(self, service: str, release: str) -> None:
        """What no key signed runs on no target; raises NotApproved."""
        if not self._channel.allowed(service, release):
            raise NotApproved(
                f"release {release} of {service} is not approved: set the alias champion to its version;"
                f" edgeloop release status {service}  says what it waits for"
            )

    def point(self, service: str, rings: Mapping[int, Pointing]) -> list[int]:
        """Let each ring run what its pointing says: one commit, and one nudge for each ring that changed; which.

        Raises:
            NotApproved: a release may not run at all; no ring was pointed anywhere.
        """
        if not rings:
            return []
        changed = [record for record, is_new in self._channel.point_many(service, rings).values() if is_new]
        for record in changed:
            self._nudge(record)
        return [record.ring for record in changed]

    def _nudge(self, record: Wanted) -> None:
        if self._broker is None:
            return
        try:
            self._broker.publish(wanted_topic(record.service, record.ring), record.to_bytes(), retain=True)
        except BrokerUnavailable as error:
            _log.warning("nudge of ring %d lost, nodes will poll: %s", record.ring, error)

    def plan(self, wave: Wave) -> Diff:
        """What the ring's record names now, and what it would."""
        record, to = self._channel.wanted(wave.service, wave.ring), _pointing(wave)
        if to is None or (record and (record.release, record.next) == (to.release, to.next)):
            return Diff()
        return Diff((f"ring {wave.ring}: {record.release if record else 'nothing'} -> {_text(to)}",))

    def stage(self, wave: Wave) -> Outcome:
        """Name ``wave.next`` in the ring's record."""
        return self.switch(wave)

    def switch(self, wave: Wave) -> Outcome:
        """Point the ring."""
        to = _pointing(wave)
        try:
            changed = self.point(wave.service, {wave.ring: to} if to else {})
        except NotApproved as error:
            return Outcome("refused", str(error))
        return Outcome("done", changed=len(changed))

    def observe(self, _wave: Wave) -> Observed | None:
        """None: the nodes' reports say it."""
        return None

    def revert(self, wave: Wave) -> Outcome:
        """Point the ring back."""
        return self.switch(wave)


def _pointing(wave: Wave) -> Pointing | None:
    if wave.release is None:
        return Pointing(wave.next.release.digest) if wave.next else None
    if wave.next is None:
        return Pointing(wave.release.digest)
    to = wave.next
    return Pointing(wave.release.digest, releases.Next(release=to.release.digest, salt=to.salt, below=to.below))


def _text(to: Pointing) -> str:
    return to.release if to.next is None else f"{to.release}, {to.next.release} on its way"
