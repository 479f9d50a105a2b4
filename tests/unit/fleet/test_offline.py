"""Approvals that are signed where only the approver's key is: nothing else can be had from it, and nothing twice."""

from __future__ import annotations

import json
import shutil
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tuf.api.metadata import Metadata, Targets

from edgeloop.clients.objects import MemoryStore
from edgeloop.errors import BadInput
from edgeloop.fleet import offline, pending
from edgeloop.fleet.approvals import CUSTOM_BYTES, Change, UnusableCustom
from edgeloop.fleet.channel import AwaitingSignature, NotApproved, Pointing
from edgeloop.fleet.metadata import LIFETIMES, ForeignKey, ForeignMetadata, StaleRequest
from edgeloop.fleet.offline import ForeignReply, MalformedRequest, NoTrustedRoot, Reply, Request
from edgeloop.fleet.publisher import Publisher
from edgeloop.fleet.repository import Repository
from edgeloop.fleet.signing import Keys, KeyUnavailable
from edgeloop.samples.records import canonical, now
from edgeloop.samples.releases import MalformedRelease, Release, metadata_key, release_key

SERVICE = "rater"


class Split:
    """A channel whose key ``releases`` lies in a folder of its own, with a copy of the first root and nothing else."""

    def __init__(self, folder: Path) -> None:
        self.store = MemoryStore()
        self.online = Keys(folder / "keys")
        self.late = timedelta()
        self.publisher = Publisher(self.store, self.online, self.now)
        self.publisher.ensure()
        self.signer = Keys(folder / "safe")
        self.signer.folder.mkdir()
        shutil.copy(self.online.folder / "root.json", self.signer.folder)
        shutil.move(self.online.folder / "releases.pem", self.signer.folder)
        self.publisher = Publisher(self.store, self.online, self.now)

    def now(self) -> datetime:
        return now() + self.late

    def put(self, version: str, service: str = SERVICE) -> str:
        made = Release(service=service, version=version, run_id="r", dataset="d", layers=[])
        self.store.put(release_key(service, made.digest), made.to_bytes())
        return made.digest

    def ask(self, release: str | None, act: Any = "approve", service: str = SERVICE, **custom: Any) -> Request:
        return self.publisher.request(Change(service, act, release, custom))

    def sign(self, asked: Request) -> Reply:
        """As on the other machine: through bytes, with a clock of its own."""
        there = offline.read(Request, asked.to_bytes(), "request")
        bundle = MemoryStore()
        for key, text in there.files.items():
            bundle.put(key, text.encode())
        repository = Repository(bundle, self.signer, self.now)
        return offline.read(Reply, offline.sign(there, self.signer, repository).to_bytes(), "reply")

    def approve(self, *versions: str, service: str = SERVICE) -> list[str]:
        names = [self.put(version, service) for version in versions]
        for name in names:
            assert self.publisher.adopt(self.sign(self.ask(name, service=service)))
        return names

    def custom(self, release: str, service: str = SERVICE) -> dict[str, Any] | None:
        view = self.publisher.show()
        assert view is not None
        return next((one.custom for one in view.services.get(service, ()) if one.release == release), None)


@pytest.fixture
def split(tmp_path: Path) -> Split:
    return Split(tmp_path)


# --- the way of an approval


def test_without_the_key_an_approval_waits_is_signed_elsewhere_and_adopted(split: Split) -> None:
    one = split.put("1")
    for _ in range(2):
        with pytest.raises(AwaitingSignature, match=rf"edgeloop release sign rater {one}"):
            split.publisher.approve(SERVICE, one, {"approvers": ["ada", "bo"]})
    [waits] = split.publisher.pending(SERVICE)
    assert (waits.service, waits.act, waits.release, waits.signed) == (SERVICE, "approve", one, False)
    with pytest.raises(NotApproved):
        split.publisher.point(SERVICE, 0, one)

    asked = pending.posted(split.store, SERVICE, one)
    assert asked is not None
    pending.answer(split.store, split.sign(asked))
    assert [p.signed for p in split.publisher.pending()] == [True]
    split.publisher.approve(SERVICE, one, {"approvers": ["ada", "bo"]})

    assert split.publisher.pending() == []
    found = split.custom(one)
    assert found is not None and found["approvers"] == ["ada", "bo"] and "at" in found
    assert split.publisher.point(SERVICE, 0, one)[0].release == one
    split.publisher.approve(SERVICE, one)  # again: nothing waits
    assert split.publisher.pending() == []


def test_a_request_that_waits_is_written_once_and_anew_when_the_channel_went_on(split: Split) -> None:
    one, two = split.put("1"), split.put("2")
    written: list[str] = []
    real = split.store.put
    split.store.put = lambda key, data: (written.append(key), real(key, data))[1]  # type: ignore[method-assign, func-returns-value]
    for _ in range(3):
        with pytest.raises(AwaitingSignature):
            split.publisher.approve(SERVICE, one)
    key = pending.request_key(SERVICE, one)
    assert written.count(key) == 1
    split.publisher.adopt(split.sign(split.ask(two)))
    with pytest.raises(AwaitingSignature):
        split.publisher.approve(SERVICE, one)
    assert written.count(key) == 2


def test_the_tick_adopts_what_came_back(split: Split) -> None:
    one = split.put("1")
    with pytest.raises(AwaitingSignature):
        split.publisher.approve(SERVICE, one)
    assert split.publisher.refresh() == []
    asked = pending.posted(split.store, SERVICE, one)
    assert asked is not None
    pending.answer(split.store, split.sign(asked))
    assert split.publisher.refresh() == ["releases-rater"]
    assert split.publisher.point(SERVICE, 0, one)[1]


def test_what_is_not_asked_for_any_more_is_not_adopted(split: Split) -> None:
    one = split.put("1")
    with pytest.raises(AwaitingSignature):
        split.publisher.approve(SERVICE, one)
    asked = pending.posted(split.store, SERVICE, one)
    assert asked is not None
    reply = split.sign(asked)
    split.publisher.forget(SERVICE, one)
    pending.answer(split.store, reply)
    assert split.publisher.pending() == [] and split.publisher.refresh() == []
    with pytest.raises(NotApproved):
        split.publisher.point(SERVICE, 0, one)


def test_one_after_the_other_of_many_services(split: Split) -> None:
    one, two = split.approve("1", "2")
    [other] = split.approve("1", service="other")
    for service, name in ((SERVICE, one), (SERVICE, two), ("other", other)):
        assert split.publisher.point(service, 0, name)[0].release == name


def test_adopting_twice_changes_nothing_the_second_time(split: Split) -> None:
    reply = split.sign(split.ask(split.put("1")))
    assert split.publisher.adopt(reply)
    before = sorted(i.key for i in split.store.list(""))
    assert not split.publisher.adopt(reply)
    assert sorted(i.key for i in split.store.list("")) == before


def test_a_withdrawal_is_signed_elsewhere_too_and_stays(split: Split) -> None:
    one, two = split.approve("1", "2")
    old = split.ask(split.put("3"))
    with pytest.raises(AwaitingSignature, match="withdraw"):
        split.publisher.withdraw(SERVICE, one)
    asked = pending.posted(split.store, SERVICE, one)
    assert asked is not None and asked.act == "withdraw"
    pending.answer(split.store, split.sign(asked))
    split.publisher.withdraw(SERVICE, one)
    with pytest.raises(NotApproved):
        split.publisher.point(SERVICE, 0, one)
    assert split.publisher.point(SERVICE, 0, two)[1]

    # A request from before it does not bring it back, whoever sends it.
    signed = Metadata[Targets].from_bytes(split.sign(old).roles["releases-rater"].encode()).signed
    assert release_key(SERVICE, one) not in signed.targets and release_key(SERVICE, two) in signed.targets
    # An approval of its own does.
    assert split.publisher.adopt(split.sign(split.ask(one)))
    assert split.publisher.point(SERVICE, 0, one)[1]


def test_a_role_that_runs_out_is_asked_for_and_signed_anew(split: Split) -> None:
    [one] = split.approve("1")
    split.late = LIFETIMES["releases"] / 2 + timedelta(days=1)
    assert "rings" in split.publisher.refresh()
    [waits] = split.publisher.pending()
    assert (waits.act, waits.release) == ("renew", None)
    asked = pending.posted(split.store, SERVICE, None)
    assert asked is not None
    reply = split.sign(asked)
    assert set(reply.roles) == {"releases", "releases-rater"}
    pending.answer(split.store, reply)
    assert split.publisher.refresh() == ["releases-rater"]
    view = split.publisher.show()
    assert view is not None and {r.role: r.life for r in view.roles}["releases"] == "good"
    assert split.publisher.point(SERVICE, 0, one)[1] and split.publisher.pending() == []


def test_the_signer_follows_new_keys_of_the_others(split: Split) -> None:
    split.approve("1")
    for role in ("timestamp", "snapshot", "root", "targets", "rings"):
        split.publisher.rotate(role)
    [two] = split.approve("2")
    assert split.publisher.point(SERVICE, 0, two)[1]
    assert split.signer.root() == split.online.root()


# --- what the signer refuses


def _changed(asked: Request, **changes: Any) -> Request:
    return Request.model_validate({**asked.model_dump(), **changes})


def test_the_signer_has_to_trust_a_root_and_hold_the_key(split: Split) -> None:
    asked = split.ask(split.put("1"))
    key = (split.signer.folder / "releases.pem").rename(split.signer.folder / "elsewhere")
    with pytest.raises(KeyUnavailable, match=r"releases\.pem"):
        split.sign(asked)
    shutil.copy(split.online.folder / "rings.pem", split.signer.folder / "releases.pem")
    with pytest.raises(ForeignKey, match="is not the key that the channel names"):
        split.sign(asked)
    key.replace(split.signer.folder / "releases.pem")
    (split.signer.folder / "root.json").unlink()
    with pytest.raises(NoTrustedRoot, match=r"root\.json"):
        split.sign(asked)


def test_a_state_of_others_is_not_signed(split: Split, tmp_path: Path) -> None:
    (tmp_path / "stranger").mkdir()
    stranger = Split(tmp_path / "stranger")
    with pytest.raises(ForeignMetadata):
        split.sign(stranger.ask(stranger.put("1")))


@pytest.mark.parametrize("role", ["targets", "releases", f"releases-{SERVICE}"])
def test_a_state_that_was_altered_is_not_signed(split: Split, role: str) -> None:
    split.approve("1")
    asked = split.ask(split.put("2"))
    key = next(key for key in asked.files if key.endswith(f".{role}.json"))
    found = json.loads(asked.files[key])
    found["signed"]["expires"] = "2099-01-01T00:00:00Z"
    with pytest.raises(ForeignMetadata, match="is not signed for"):
        split.sign(_changed(asked, files={**asked.files, key: json.dumps(found)}))


def test_only_the_manifest_that_is_named_is_approved(split: Split) -> None:
    one, two = split.put("1"), split.put("2")
    asked = split.ask(one)
    foreign = split.put("1", service="other")
    for name, text in ((two, None), (one, split.store.get(release_key(SERVICE, two)).decode()), (foreign, None)):
        files = dict(asked.files)
        files[release_key(SERVICE, one)] = text or files[release_key(SERVICE, one)]
        if name == foreign:
            files[release_key(SERVICE, foreign)] = split.store.get(release_key("other", foreign)).decode()
        with pytest.raises(MalformedRelease):
            split.sign(_changed(asked, files=files, release=name))


def test_an_older_state_than_one_seen_is_not_signed(split: Split) -> None:
    old = split.ask(split.put("1"))
    split.approve("2", "3")
    with pytest.raises(StaleRequest, match="was seen here"):
        split.sign(old)


def test_what_is_done_is_not_signed_again(split: Split) -> None:
    [one] = split.approve("1")
    with pytest.raises(StaleRequest, match="it is done already"):
        split.sign(split.ask(one))
    with pytest.raises(StaleRequest, match="it is done already"):
        split.sign(split.ask(None, "renew"))


def test_no_version_is_given_away_twice(split: Split) -> None:
    first, second = split.ask(split.put("1")), split.ask(split.put("2"))
    versions = [
        Metadata[Targets].from_bytes(split.sign(asked).roles["releases-rater"].encode()).signed.version
        for asked in (first, second, first)
    ]
    assert versions == sorted(set(versions))


def test_a_request_cannot_push_the_version_far_ahead(split: Split) -> None:
    asked = split.ask(split.put("1"))
    with pytest.raises(MalformedRequest, match="asks for version"):
        split.sign(_changed(asked, free={"releases-rater": 10**6}))


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b"\xff", b"[" * 100_000, b" " * 2_000_001])
def test_a_file_that_is_no_request_is_named(data: bytes) -> None:
    with pytest.raises(MalformedRequest, match="some file"):
        offline.read(Request, data, "some file")


# --- what the channel refuses


def test_a_reply_on_an_older_state_is_stale(split: Split) -> None:
    first, second = split.put("1"), split.put("2")
    replies = [split.sign(split.ask(name)) for name in (first, second)]
    assert split.publisher.adopt(replies[0])
    with pytest.raises(StaleRequest, match="sign the new request"):
        split.publisher.adopt(replies[1])
    with pytest.raises(NotApproved):
        split.publisher.point(SERVICE, 0, second)
    # Waiting in the store it is refused as well, and asked for anew.
    pending.answer(split.store, replies[1])
    with pytest.raises(AwaitingSignature):
        split.publisher.approve(SERVICE, second)
    assert [p.signed for p in split.publisher.pending()] == [False]


def test_what_was_signed_by_a_clock_that_is_late_is_not_adopted(split: Split) -> None:
    asked = split.ask(split.put("1"))
    split.late = -LIFETIMES["releases"] - timedelta(days=1)
    reply = split.sign(asked)
    split.late = timedelta()
    with pytest.raises(StaleRequest, match="signer's clock"):
        split.publisher.adopt(reply)


def test_a_reply_of_another_key_is_refused(split: Split) -> None:
    asked = split.ask(split.put("1"))
    reply = split.sign(asked)
    for role in reply.roles:
        found = Metadata[Targets].from_bytes(reply.roles[role].encode())
        found.sign(split.online.signers("rings")[0])
        forged = Reply.model_validate({**reply.model_dump(), "roles": {**reply.roles, role: found.to_bytes().decode()}})
        with pytest.raises(ForeignReply, match="key releases"):
            split.publisher.adopt(forged)


def test_a_reply_that_was_altered_or_is_of_another_service_is_refused(split: Split) -> None:
    split.approve("1")
    split.approve("1", service="other")
    reply = split.sign(split.ask(split.put("2")))
    text = reply.roles["releases-rater"]
    altered = {**reply.model_dump(), "roles": {"releases-rater": text.replace('"length":', '"length":1')}}
    with pytest.raises(ForeignReply):
        split.publisher.adopt(Reply.model_validate(altered))
    swapped = {**reply.model_dump(), "service": "other", "base": {"releases": 3, "releases-other": 1}}
    swapped["roles"] = {"releases-other": text}
    with pytest.raises(ForeignReply, match="signed for another service"):
        split.publisher.adopt(Reply.model_validate(swapped))
    for roles in ({}, {"releases-rater": text, "rings-rater": text}):
        with pytest.raises(ForeignReply, match="speaks of"):
            split.publisher.adopt(Reply.model_validate({**reply.model_dump(), "roles": roles}))


def test_a_version_that_somebody_wrote_meanwhile_makes_a_reply_stale(split: Split) -> None:
    reply = split.sign(split.ask(split.put("1")))
    version = Metadata[Targets].from_bytes(reply.roles["releases-rater"].encode()).signed.version
    split.store.put(metadata_key(f"{version}.releases-rater.json"), b"other")
    with pytest.raises(StaleRequest, match="ask for a new signature"):
        split.publisher.adopt(reply)
    assert split.publisher.adopt(split.sign(split.ask(reply.release)))


# --- what lies in the store


def test_rubbish_among_the_requests_hides_nothing(split: Split) -> None:
    one = split.put("1")
    with pytest.raises(AwaitingSignature):
        split.publisher.approve(SERVICE, one)
    split.store.put("pending/rater/rubbish.json", b"{")
    split.store.put("pending/rater/misplaced.json", split.store.get(pending.request_key(SERVICE, one)))
    split.store.put(pending.reply_key(SERVICE, one), b"rubbish")
    assert [p.release for p in split.publisher.pending()] == [one]
    assert split.publisher.refresh() == []
    with pytest.raises(AwaitingSignature):
        split.publisher.approve(SERVICE, one)


@pytest.mark.parametrize("custom", [{"share": 0.5}, {"at": "now"}, {"by": "x" * CUSTOM_BYTES}, {"by": object()}])
def test_what_cannot_be_said_beside_an_approval_is_refused(split: Split, custom: dict[str, Any]) -> None:
    one = split.put("1")
    with pytest.raises(UnusableCustom, match="custom of an approval"):
        split.publisher.approve(SERVICE, one, custom)
    assert split.publisher.pending() == []


def test_the_signer_refuses_a_custom_of_any_size_by_itself(split: Split) -> None:
    asked = split.ask(split.put("1"))
    with pytest.raises(UnusableCustom):
        split.sign(_changed(asked, custom={"by": "x" * CUSTOM_BYTES}))


def test_what_a_ring_is_moving_to_is_not_forgotten(split: Split) -> None:
    from edgeloop.fleet.approvals import APPROVED
    from edgeloop.samples.releases import Next

    one, two = split.approve("1", "2")
    split.publisher.point_many(SERVICE, {0: Pointing(one, Next(release=two, salt="s", below="8" * 16))})
    split.approve(*[f"later {n}" for n in range(APPROVED + 2)])
    assert split.custom(one) is not None and split.custom(two) is not None
    view = split.publisher.show()
    assert view is not None and len(view.services[SERVICE]) <= APPROVED + 2


def test_the_memory_of_a_signer_that_was_spoilt_is_said(split: Split) -> None:
    (split.signer.folder / "signed.json").write_bytes(canonical({"snapshot": "x"}))
    with pytest.raises(BadInput, match=r"signed\.json"):
        split.sign(split.ask(split.put("1")))


def _wait(split: Split, release: str, service: str = SERVICE) -> Request:
    """What the channel asks for when its service is looked at now."""
    with pytest.raises(AwaitingSignature):
        split.publisher.approve(service, release)
    asked = pending.posted(split.store, service, release)
    assert asked is not None
    return asked


def test_a_request_does_not_go_stale_while_the_channel_goes_on_for_others(split: Split) -> None:
    """The signer signs no state older than one that it saw; what it saw for another service must not lock this one."""
    split.approve("1")
    split.approve("1", service="looker")
    two, other = split.put("2"), split.put("2", "looker")
    first = _wait(split, two)
    split.publisher.point("looker", 0, split.put("1", "looker"))
    assert split.publisher.adopt(split.sign(split.ask(other, service="looker")))
    with pytest.raises(StaleRequest, match="ask again"):
        split.sign(first)
    assert split.publisher.adopt(split.sign(_wait(split, two)))


def test_a_signer_without_a_memory_is_told_of_versions_that_were_given_away(split: Split) -> None:
    """As a CI job whose folder is made anew: what a writer left behind must not be signed over for ever."""
    split.approve("1")
    two = split.put("2")
    cut_off = split.sign(_wait(split, two))
    split.store.put(metadata_key("2.releases-rater.json"), cut_off.roles["releases-rater"].encode())  # and no snapshot
    (split.signer.folder / "signed.json").unlink()
    split.late = timedelta(minutes=1)
    pending.answer(split.store, split.sign(_wait(split, two)))
    split.publisher.approve(SERVICE, two)
    assert split.publisher.point(SERVICE, 0, two)[1]


def test_a_request_for_what_is_not_there_stops_nobody(split: Split) -> None:
    """A job may write requests and answers: a spoilt pair must not stop the tick of every service."""
    one = split.put("1")
    _wait(split, one)
    lost = "sha256:" + "0" * 64
    spoilt = {"version": 1, "service": SERVICE, "act": "approve", "release": lost, "base": {}}
    split.store.put(pending.request_key(SERVICE, lost), canonical(spoilt | {"free": {}, "files": {}}))
    split.store.put(pending.reply_key(SERVICE, lost), canonical(spoilt | {"roles": {}}))
    pending.answer(split.store, split.sign(_wait(split, one)))
    assert split.publisher.refresh() == ["releases-rater"]
    assert split.publisher.pending() == []


def test_a_withdrawal_that_waits_is_not_forgotten_with_the_promotion(split: Split) -> None:
    [one] = split.approve("1")
    with pytest.raises(AwaitingSignature):
        split.publisher.withdraw(SERVICE, one)
    split.publisher.forget(SERVICE, one)
    assert [waits.act for waits in split.publisher.pending()] == ["withdraw"]
