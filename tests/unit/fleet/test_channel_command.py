"""``edgeloop channel``: keys and signatures by hand."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from edgeloop.bootstrap import App
from edgeloop.cli import main
from edgeloop.commands.channel_check import check_channel
from edgeloop.edge.releases.channel import Channel, read_root
from edgeloop.fleet.approvals import Change
from edgeloop.fleet.channel import AwaitingSignature, NotApproved, Pointing
from edgeloop.fleet.metadata import LIFETIMES
from edgeloop.fleet.signing import ROLES
from edgeloop.samples.releases import Layer, Next, Release, Variant, release_key
from edgeloop.settings import load_settings
from edgeloop.stack.doctor import Check


def run(capsys: pytest.CaptureFixture[str], home: Path, *words: str) -> tuple[int, Any]:
    return run_any(capsys, home, "channel", *words)


def run_any(capsys: pytest.CaptureFixture[str], home: Path, *words: str) -> tuple[int, Any]:
    with pytest.raises(SystemExit) as ended:
        main(["--home", str(home), "--json", *words])
    return int(str(ended.value.code or 0)), json.loads(capsys.readouterr().out)


def shown(capsys: pytest.CaptureFixture[str], home: Path, *words: str) -> str:
    with pytest.raises(SystemExit):
        main(["--home", str(home), *words])
    return capsys.readouterr().out


def a_release(app: App, version: str = "1", variants: Sequence[Variant] = ()) -> str:
    made = Release(service="rater", version=version, run_id="r", dataset="d", layers=[], variants=list(variants))
    app.store.put(release_key("rater", made.digest), made.to_bytes())
    return made.digest


def parted(home: Path, safe: Path) -> App:
    """A home whose approver's key was taken away to ``safe``."""
    app = App(load_settings(home))
    app.channel.ensure()
    safe.mkdir()
    (home / "keys" / "releases.pem").rename(safe / "releases.pem")
    (safe / "root.json").write_bytes((home / "keys" / "root.json").read_bytes())
    return App(load_settings(home))


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("EDGELOOP_STORE", "EDGELOOP_KEYS"):
        monkeypatch.delenv(name, raising=False)


def test_keys_are_made_rotated_and_refreshed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home, root = tmp_path / "home", tmp_path / "root.json"
    code, found = run(capsys, home, "init", "--root", str(root))
    assert code == 0 and found == {"root": str(root), "keys": str(home / "keys")}
    first = read_root(root)
    assert run(capsys, home, "init")[1]["root"] == str(home / "keys" / "root.json")
    assert run(capsys, home, "refresh") == (0, {"signed": []})
    assert run(capsys, home, "rotate", "timestamp") == (0, {"rotated": "timestamp"})
    run(capsys, home, "init", "--root", str(root))
    assert read_root(root) != first
    store = App(load_settings(home)).store
    assert Channel(lambda: store, first, tmp_path / "node", 0).wanted("rater") is None


def test_a_release_is_withdrawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    app = App(load_settings(tmp_path / "home"))
    release = Release(service="rater", version="1", run_id="r", dataset="d", layers=[])
    app.store.put(release_key("rater", release.digest), release.to_bytes())
    app.channel.approve("rater", release.digest)
    command = ("withdraw", "rater", release.digest, "--by", "ann", "--reason", "it leaks")
    assert run(capsys, tmp_path / "home", *command) == (0, {"withdrawn": release.digest})
    row = app.fleet.entry("rater", "withdraw", release.digest)
    assert row is not None and (row["who"], row["reason"]) == ("ann", "it leaks")
    with pytest.raises(NotApproved):
        app.channel.point("rater", 0, release.digest)


def test_mistakes_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home = tmp_path / "home"
    run(capsys, home, "init")
    code, found = run(capsys, home, "rotate", "king")
    assert code == 2 and "no role 'king'" in found["error"]
    code, found = run(capsys, home, "init", "--root", str(tmp_path / "none" / "root.json"))
    assert code == 2 and "name another file" in found["error"]
    (home / "keys" / "root.pem").unlink()
    code, found = run(capsys, home, "rotate", "root")
    assert code == 2 and "root.pem" in found["error"] and "EDGELOOP_KEYS" in found["error"]


def test_keys_can_lie_elsewhere(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGELOOP_KEYS", str(tmp_path / "safe"))
    assert run(capsys, tmp_path / "home", "init")[1]["keys"] == str(tmp_path / "safe")
    assert (tmp_path / "safe" / "root.pem").is_file() and not (tmp_path / "home" / "keys").exists()


def test_before_there_is_a_channel_there_is_nothing_to_show(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home = tmp_path / "home"
    assert run(capsys, home, "show") == (0, {"snapshot": 0, "roles": [], "services": {}, "moves": {}, "pending": []})
    assert "no channel yet" in shown(capsys, home, "channel", "show")
    assert not (home / "keys").exists()


def test_roles_keys_and_releases_with_their_rings_are_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home = tmp_path / "home"
    app = App(load_settings(home))
    one, two = a_release(app, "1"), a_release(app, "2")
    for name in (one, two):
        app.channel.approve("rater", name, {"twin": "sha256:1"})
    app.channel.point_many("rater", {0: Pointing(two), 1: Pointing(one, Next(release=two, salt="s", below="8" * 16))})
    for name in ("root", "targets"):
        (home / "keys" / f"{name}.pem").unlink()
    before = sorted((p, p.stat().st_mtime_ns) for p in tmp_path.rglob("*"))
    code, found = run(capsys, home, "show")
    assert code == 0 and sorted((p, p.stat().st_mtime_ns) for p in tmp_path.rglob("*")) == before
    roles = {role["role"]: role for role in found["roles"]}
    assert set(roles) == {*ROLES, "releases-rater", "rings-rater"}
    assert {name for name, role in roles.items() if not role["here"]} == {"root", "targets"}
    assert {(role["life"], role["threshold"], len(role["keys"])) for role in roles.values()} == {("good", 1, 1)}
    assert roles["releases-rater"]["version"] == 2 and roles["rings-rater"]["version"] == 1
    newest, oldest = found["services"]["rater"]
    assert (newest["release"], newest["rings"], newest["next"]) == (two, [0], [1])
    assert (oldest["release"], oldest["rings"], oldest["next"]) == (one, [1], [])
    assert newest["custom"]["twin"] == "sha256:1"
    text = shown(capsys, home, "channel", "show")
    assert two in text and "key here" in text


def test_nodes_that_moved_are_shown_and_of_many_the_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home = tmp_path / "home"
    app = App(load_settings(home))
    app.channel.ensure()
    many = {f"n{number:02}": 3 for number in range(22)}
    app.channel.move("west", lambda: many)
    app.channel.move("default", lambda: {"edge-1": 0})
    app.channel.move("east", lambda: {"edge-2": 1})
    app.channel.move("east", lambda: {"edge-2": None})
    assert run(capsys, home, "show")[1]["moves"] == {"default": {"edge-1": 0}, "west": many}
    text = shown(capsys, home, "channel", "show")
    assert "moved in fleet default: edge-1 to ring 0\n" in text
    assert "n19 to ring 3 and 2 more" in text and "n20" not in text


def test_who_signs_is_told_where_what_is_signed_is_lost(tmp_path: Path) -> None:
    app = App(load_settings(tmp_path / "home"))
    assert app.channel.roles() == ()
    app.channel.ensure()
    app.channel.move("west", lambda: {"edge-1": 0})
    view = app.channel.show()
    assert view is not None and app.channel.roles() == view.roles
    (record,) = app.store.list("channel/targets/fleets")
    app.store.delete(record.key)
    assert app.channel.roles() == view.roles


def test_an_approval_is_signed_elsewhere_by_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home, safe = tmp_path / "home", tmp_path / "safe"
    app = parted(home, safe)
    one = a_release(app)
    with pytest.raises(AwaitingSignature):
        app.channel.approve("rater", one, {"approvers": ["ada"]})
    asked, answer = str(tmp_path / "asked"), str(tmp_path / "answer")
    assert run(capsys, home, "request", "rater", one, asked) == (0, {"request": asked, "act": "approve"})
    [waits] = run(capsys, home, "show")[1]["pending"]
    assert (waits["release"], waits["signed"]) == (one, False)

    elsewhere = tmp_path / "elsewhere"  # no store, no channel, and the key
    (elsewhere / "keys").mkdir(parents=True)
    for path in safe.iterdir():
        (elsewhere / "keys" / path.name).write_bytes(path.read_bytes())
    words = ("release", "sign", "rater", one, "--request", asked, "--out", answer)
    code, found = run_any(capsys, elsewhere, *words)
    assert code == 2 and "add --yes" in found["error"]
    code, found = run_any(capsys, elsewhere, *words, "--yes")
    assert (code, found["signed"], found["answer"]) == (0, ["releases", "releases-rater"], answer)
    assert {path.name for path in elsewhere.iterdir()} == {"keys"}

    assert run(capsys, home, "adopt", answer)[1]["adopted"] is True
    assert run(capsys, home, "adopt", answer)[1]["adopted"] is False
    found = run(capsys, home, "show")[1]
    assert found["pending"] == [] and found["services"]["rater"][0]["custom"]["approvers"] == ["ada"]
    assert app.channel.point("rater", 0, one)[1]


def test_a_job_that_holds_the_key_signs_through_the_store(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    home, safe = tmp_path / "home", tmp_path / "safe"
    app = parted(home, safe)
    one = a_release(app)
    with pytest.raises(AwaitingSignature):
        app.channel.approve("rater", one)
    monkeypatch.setenv("EDGELOOP_KEYS", str(safe))
    monkeypatch.setenv("EDGELOOP_STORE", app.settings.store_url)
    code, found = run_any(capsys, tmp_path / "job", "release", "sign", "rater", one, "--yes")
    assert code == 0 and found["answer"].startswith("pending/rater/")
    app.channel.approve("rater", one)
    assert app.channel.point("rater", 0, one)[1]
    code, found = run_any(capsys, tmp_path / "job", "release", "sign", "rater", one, "--yes")
    assert code == 2 and "nothing waits" in found["error"]


def test_the_signer_is_asked_and_shown_what_it_signs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    home, safe = tmp_path / "home", tmp_path / "safe"
    app = parted(home, safe)
    backbone = Layer(role="backbone", digest="sha256:" + "7" * 64, size=9, media_type="x/y")
    small = Variant(profile="pi", runtime="litert", precision="int8", layers=[backbone], agreement=1, compared=9)
    one = a_release(app, variants=[small])
    with pytest.raises(AwaitingSignature):
        app.channel.approve("rater", one, {"approvers": ["ada\x1b[2J"], "\x1b[1A": 1})
    monkeypatch.setenv("EDGELOOP_KEYS", str(safe))
    seen: list[str] = []

    def refuse(text: str, *, err: bool) -> bool:
        seen.append(text)
        return not err

    monkeypatch.setattr("click.confirm", refuse)
    with pytest.raises(SystemExit) as ended:
        main(["--home", str(home), "release", "sign", "rater", one])
    printed = capsys.readouterr().err
    assert ended.value.code == 2 and seen == ["sign this?"]
    assert f"approve {one} of rater" in printed and "version '1'" in printed and "\\u001b" in printed
    assert f"'pi' backbone: 9 bytes, sha256:{'7' * 64}" in printed, "what other profiles run is signed too"
    assert "\x1b" not in printed
    assert app.channel.pending()[0].signed is False


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("channel", "adopt", "FILE"), "cannot be read"),
        (("channel", "request", "rater", "RELEASE", "none/file"), "cannot be written"),
        (("channel", "request", "rater", "sha256:" + "0" * 64, "FILE"), "to approve"),
        (("release", "sign", "rater", "RELEASE", "--yes"), "nothing waits"),
        (("release", "sign", "rater", "RELEASE", "--request", "FILE", "--yes"), "cannot be read"),
        (("release", "sign", "rater", "RELEASE", "--request", "README", "--yes"), "is no request"),
        (("release", "sign", "other", "RELEASE", "--request", "ASKED", "--yes"), "name what it is"),
    ],
)
def test_what_cannot_be_signed_or_adopted_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], said: str
) -> None:
    home = tmp_path / "home"
    app = App(load_settings(home))
    app.channel.ensure()
    one = a_release(app)
    (tmp_path / "README").write_bytes(b"read me")
    (tmp_path / "ASKED").write_bytes(app.channel.request(Change("rater", "approve", one)).to_bytes())
    names = {"RELEASE": one, "none/file": str(tmp_path / "none" / "file")}
    names |= {name: str(tmp_path / name) for name in ("FILE", "README", "ASKED")}
    code, found = run_any(capsys, home, *(names.get(word, word) for word in words))
    assert code == 2 and said in found["error"]


# --- doctor


def found_by_doctor(home: Path) -> dict[str, Check]:
    return {check.name: check for check in check_channel(load_settings(home))}


def test_doctor_finds_nothing_where_all_is_well(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home = tmp_path / "home"
    assert [check.ok for check in found_by_doctor(home).values()] == [True]
    assert not home.exists()
    run(capsys, home, "init")
    [check] = found_by_doctor(home).values()
    assert check.ok and "6 roles" in check.detail
    named = [check["name"] for check in run_any(capsys, home, "doctor")[1]["checks"]]
    assert "channel" in named


def test_doctor_warns_of_what_runs_out_and_cannot_be_signed_here(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    for role, kept in (("releases", LIFETIMES["releases"]), ("root", LIFETIMES["root"])):
        monkeypatch.setitem(LIFETIMES, role, kept * 0.4)
    run(capsys, home, "init")
    monkeypatch.undo()
    assert all(check.ok for check in found_by_doctor(home).values())  # the keys are here
    root, releases = ((home / "keys" / f"{role}.pem").read_bytes() for role in ("root", "releases"))
    (home / "keys" / "releases.pem").unlink()
    (home / "keys" / "root.pem").unlink()
    found = found_by_doctor(home)
    assert set(found) == {"channel: releases", "channel: root"}
    assert all(check.warning and not check.ok and "key not here" in check.detail for check in found.values())
    assert "release sign SERVICE renew" in found["channel: releases"].fix
    assert found["channel: root"].fix == "bring root.pem and run  edgeloop channel refresh"
    (home / "keys" / "root.pem").write_bytes(root)
    assert run(capsys, home, "refresh") == (0, {"signed": ["root"]})
    assert set(found_by_doctor(home)) == {"channel: releases"}
    (home / "keys" / "releases.pem").write_bytes(releases)
    assert run(capsys, home, "refresh") == (0, {"signed": ["snapshot", "timestamp", "releases"]})
    assert [check.ok for check in found_by_doctor(home).values()] == [True]
    assert run(capsys, home, "refresh") == (0, {"signed": []})


def test_doctor_fails_on_what_has_run_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    monkeypatch.setitem(LIFETIMES, "timestamp", -LIFETIMES["timestamp"])
    run(capsys, home, "init")
    monkeypatch.undo()
    found = found_by_doctor(home)
    assert (found["channel: timestamp"].ok, found["channel: timestamp"].warning) == (False, False)
    assert found["channel: timestamp"].fix == "run  edgeloop channel refresh"
    run(capsys, home, "refresh")
    assert all(check.ok for check in found_by_doctor(home).values())


def test_doctor_says_what_is_not_believed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home = tmp_path / "home"
    run(capsys, home, "init")
    app = App(load_settings(home))
    app.store.put("channel/1.targets.json", b"{}")
    [check] = found_by_doctor(home).values()
    assert not check.ok and "1.targets.json" in check.detail
