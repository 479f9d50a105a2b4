"""What the cloud says over the signed channel: which releases may run at all, and which ring runs which of them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from tuf.api.metadata import Root

from edgeloop.clients.objects import ObjectMissing, ObjectStore
from edgeloop.fleet import moving, offline, pending, pointings
from edgeloop.fleet.approvals import Change, allows, apply, check_custom, is_done, manifest
from edgeloop.fleet.channel import AwaitingSignature, NotApproved, Pointing
from edgeloop.fleet.delegations import begin
from edgeloop.fleet.draft import Draft
from edgeloop.fleet.metadata import ChannelBusy, StaleRequest
from edgeloop.fleet.offline import ForeignReply, Reply, Request
from edgeloop.fleet.pending import Pending
from edgeloop.fleet.repository import Repository
from edgeloop.fleet.show import ChannelView, RoleView, describe, describe_roles
from edgeloop.fleet.signing import Keys
from edgeloop.fleet.upkeep import refresh, rotate
from edgeloop.samples.records import now
from edgeloop.samples.releases import MalformedRelease, Wanted, wish_at

_log = logging.getLogger(__name__)


class Publisher:
    """The signed channel of one store. Every method may be called again, by any process, at any time."""

    def __init__(self, store: ObjectStore, keys: Keys, clock: Callable[[], datetime] = now) -> None:
        self._store = store
        self._keys = keys
        self._clock = clock
        self._repository = Repository(store, keys, clock)
        self._is_made = False

    # --- set-up

    def ensure(self) -> bytes:
        """Make keys and metadata if there are none, and return the root that nodes are to trust.

        Raises:
            ForeignKey: the store's channel was signed with other keys.
            KeyUnavailable: a key of the set-up is not in the folder of keys.
        """
        if not self._is_made:
            self._ensure_root()
            self._repository.commit(self._begin)
            self._is_made = True
        self.refresh()
        root = self._keys.root()
        assert root is not None
        return root

    def _ensure_root(self) -> None:
        pinned, found = self._keys.root(), self._found("1.root.json")
        if pinned is None and found is not None:
            self._repository.trust(found)
        elif pinned is None:
            self._keys.ensure()
            try:
                self._keys.pin(self._repository.write_root(self._new_root()))
            except ChannelBusy:  # another was faster, with another time in it
                self._repository.trust(self._store.get("channel/1.root.json"))
        elif found is None:  # these keys on another store
            root = self._repository.root()
            assert root is not None
            self._store.create(f"channel/{root.version}.root.json", pinned)

    def _found(self, name: str) -> bytes | None:
        try:
            return self._store.get(f"channel/{name}")
        except ObjectMissing:
            return None

    def _new_root(self) -> Root:
        root = Root(version=1, consistent_snapshot=True)
        for role in ("root", "targets", "snapshot", "timestamp"):
            root.add_key(self._keys.public(role), role)
        return root

    def _begin(self, draft: Draft) -> bool:
        """``targets`` and the two roles below it; nothing when they are there."""
        if "targets" in draft.roles:
            return False
        begin(draft, self._keys)
        return True

    # --- releases

    def approve(self, service: str, release: str, custom: Mapping[str, Any] | None = None) -> None:
        """Let ``release`` run. Signed with the approver's key, ``releases``, here or where it is kept.

        Args:
            custom: said beside the approval, in the signed metadata: names, numbers, text; at most 512 bytes.

        Raises:
            MalformedRelease: there is no such manifest, or it is not of this service.
            UnusableCustom: ``custom`` cannot be signed or is too long.
            AwaitingSignature: the key is not here; a request lies in the store. Call again to adopt the answer.
        """
        if not self._is_made:
            self.ensure()
        check_custom(custom or {})
        manifest(self._store, service, release)
        self._decide(Change(service, "approve", release, custom or {}))

    def withdraw(self, service: str, release: str) -> None:
        """Never let ``release`` be loaded again; nodes that run it go on until their ring is pointed elsewhere.

        Raises:
            AwaitingSignature: as :meth:`approve`.
        """
        self._decide(Change(service, "withdraw", release))

    def _decide(self, change: Change) -> None:
        if not self._keys.has("releases"):
            self._have_signed(change)
        elif self._repository.commit(lambda draft: apply(draft, change, self._store, self._keys, self._clock())):
            pending.settle(self._store, change.service, change.release)

    # --- releases, signed elsewhere

    def _have_signed(self, change: Change) -> None:
        """Adopt the answer, or ask; raises AwaitingSignature."""
        reply = pending.answered(self._store, change.service, change.release)
        if reply is not None and reply.act == change.act:
            try:
                self.adopt(reply)
            except (StaleRequest, ForeignReply) as error:
                _log.error("%s", error)
                pending.refuse(self._store, change.service, change.release)
        draft = self._repository.read()
        if draft is None or is_done(draft, change, self._clock()):
            pending.settle(self._store, change.service, change.release)
            return
        pending.post(self._store, offline.request(self._repository, draft, change))
        raise AwaitingSignature(
            f"to {change.text()} waits for a signature, there is no {self._keys.folder / 'releases.pem'}: run"
            f"  edgeloop release sign {change.service} {change.release or 'renew'}  where that key is"
        )

    def request(self, change: Change) -> Request:
        """What has to be signed for ``change``, to be carried to the key by hand.

        Raises:
            MalformedRelease: there is no such manifest.
            NotApproved: there is no channel yet.
        """
        draft = self._repository.read()
        if draft is None or draft.version == 0:
            raise NotApproved(f"there is no channel in {self._store.url} yet: run  edgeloop channel init")
        check_custom(change.custom)
        return offline.request(self._repository, draft, change)

    def adopt(self, reply: Reply) -> bool:
        """Publish what was signed elsewhere: see :func:`offline.adopt`."""
        done = offline.adopt(self._repository, reply)
        pending.settle(self._store, reply.service, reply.release)
        return done

    def pending(self, service: str | None = None) -> list[Pending]:
        """What waits for a signature of ``releases``."""
        return list(pending.waiting(self._store, service))

    def asked(self, service: str, release: str) -> Change | None:
        """What waits for a signature of this release, with what is said beside it; None when nothing does."""
        found = pending.posted(self._store, service, release)
        return found.change if found else None

    def forget(self, service: str, release: str) -> None:
        """Ask no more for an approval of this release; one given meanwhile is not adopted."""
        if not any(one.act == "withdraw" for one in self.pending(service) if one.release == release):
            pending.settle(self._store, service, release)

    def _tend(self) -> list[str]:
        """Adopt what was signed elsewhere and ask for what runs out; the roles that are new."""
        if self._keys.root() is None or self._keys.has("releases"):
            return []
        done = [one for one in self.pending() if one.signed and self._is_settled(one.change)]
        return [one.change.role for one in done]

    def _is_settled(self, change: Change) -> bool:
        try:
            self._have_signed(change)
        except AwaitingSignature as error:
            _log.warning("%s", error)
            return False
        except MalformedRelease as error:  # one that can never be signed must not stop the others
            _log.error("%s", error)
            pending.settle(self._store, change.service, change.release)
            return False
        return True

    def _ask_to_renew(self) -> None:
        """Of one service at a time: its answer renews the role above it too."""
        draft = self._repository.read()
        services = [r.removeprefix("releases-") for r in draft.roles if r.startswith("releases-")] if draft else []
        for service in services:
            self._is_settled(Change(service, "renew"))

    # --- rings

    def allowed(self, service: str, release: str) -> bool:
        """Whether ``release`` may run, verified."""
        draft = self._repository.read()
        return draft is not None and allows(draft, service, release)

    def wanted(self, service: str, ring: int) -> Wanted | None:
        """What ``ring`` is to run, verified; None before the first time."""
        draft = self._repository.read()
        return pointings.wanted(draft, self._store, service, ring) if draft else None

    def point(self, service: str, ring: int, release: str) -> tuple[Wanted, bool]:
        """Let all of ``ring`` run ``release``: see :meth:`point_many`."""
        return self.point_many(service, {ring: Pointing(release)})[ring]

    def point_many(self, service: str, rings: Mapping[int, Pointing]) -> dict[int, tuple[Wanted, bool]]:
        """Let each ring run what its pointing says; the records, and whether each is new.

        One commit, signed with the online key ``rings``; nothing is written when nothing changes.

        Raises:
            NotApproved: a release may not run at all; no ring was pointed anywhere.
            StoreUnavailable: the rings may be pointed already or not; call again.
        """
        found: dict[int, tuple[Wanted, bool]] = {}

        def change(draft: Draft) -> bool:
            found.clear()
            for name in sorted(pointings.named(rings.values())):
                if not allows(draft, service, name):
                    raise NotApproved(f"release {name} of {service} is not approved: release the version again")
            found.update({ring: self._pointed(draft, service, ring, to) for ring, to in rings.items()})
            fresh = [record for record, is_new in found.values() if is_new]
            for record in fresh:
                pointings.point(draft, self._keys, record)
            return bool(fresh)

        self._repository.commit(change)
        if len(found) < len(rings):
            raise NotApproved(f"no release of {service} is approved: there is no channel yet, release a version")
        return found

    def _pointed(self, draft: Draft, service: str, ring: int, to: Pointing) -> tuple[Wanted, bool]:
        former = pointings.wanted(draft, self._store, service, ring)
        if former and (former.release, former.next) == (to.release, to.next):
            return former, False
        sequence = former.sequence + 1 if former else 1
        wish = _wish(former, to.release) or wish_at(sequence)
        return Wanted(service=service, ring=ring, release=to.release, sequence=sequence, next=to.next, wish=wish), True

    def moves(self, fleet: str) -> dict[str, int]:
        """Ring by name of each node that is not in the ring of its node.yaml, verified."""
        draft = self._repository.read()
        return moving.moves(draft, self._store, fleet) if draft else {}

    def move(self, fleet: str, asked: Callable[[], Mapping[str, int | None]]) -> bool:
        """Let nodes be in other rings; False when nothing is written because they are.

        Args:
            asked: what is asked for now: it is called again after another writer was faster, so that of two moves of
                one node the later one stands. None is the ring of the node's own node.yaml.

        Raises:
            KeyUnavailable: the channel is from before nodes could move, and the key ``targets`` is not here.
        """
        if not self._is_made:
            self.ensure()
        return self._repository.commit(lambda draft: moving.move(draft, self._store, self._keys, fleet, asked()))

    # --- upkeep

    def refresh(self, *, every: bool = False) -> list[str]:
        """Sign anew what is past half of its lifetime, and say what that was: see :func:`upkeep.refresh`.

        Without the key ``releases``, what was signed elsewhere is adopted, and what runs out is asked for.
        """
        signed = refresh(self._repository, every=every)
        if (signed or every) and not self._keys.has("releases"):
            self._ask_to_renew()
        return signed + self._tend()

    def rotate(self, role: str) -> None:
        """Replace the key of ``role``: see :func:`upkeep.rotate`."""
        rotate(self._repository, role)

    def show(self) -> ChannelView | None:
        """All that is signed, by which keys and until when; None before there is a channel. Writes nothing."""
        return describe(self._repository)

    def roles(self) -> tuple[RoleView, ...]:
        """Who signs until when, without what is signed; none before there is a channel. Writes nothing."""
        return describe_roles(self._repository)


def _wish(former: Wanted | None, release: str) -> str | None:
    """The wish that brought ``release`` into this ring already; None when it is a new one."""
    if former is None:
        return None
    if former.next is not None and former.next.release == release:
        return former.next.salt
    return former.wish_for_release if former.release == release else None
