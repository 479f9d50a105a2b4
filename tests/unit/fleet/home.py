"""A home for tests of commands: a service with a release, fleets, a kubeconfig, and nodes that were heard."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edgeloop.bootstrap import App
from edgeloop.cli import main
from edgeloop.clients.broker import MemoryHub
from edgeloop.fleet.rollouts.intake import hear
from edgeloop.fleet.rollouts.roster import Roster
from edgeloop.release.images import Images
from edgeloop.samples.records import Report, digest, now
from edgeloop.samples.releases import Release, release_key
from edgeloop.samples.topics import report_topic
from edgeloop.settings import load_settings
from tests.unit.fleet.rollouts.world import NEW

SERVICE = """
version: 1
name: rater
kind: tabular-regressor
description: rates
features: [{name: a}]
target: {name: y, min: 0, max: 10}
rings: %s
rollout: {target: %s}
"""
KUBECONFIG = """
apiVersion: v1
kind: Config
current-context: west
clusters: [{name: c, cluster: {server: "http://127.0.0.1:1"}}]
users: [{name: u, user: {}}]
contexts: [{name: west, context: {cluster: c, user: u}}, {name: lab, context: {cluster: c, user: u}}]
"""
HEAD = "version: 2\nname: f\notherwise: 1\n"
OLD_HEAD = HEAD.replace("2", "1")
EDGE = "rings: {0: [x]}\ntargets: {kubeedge: {context: west}}\n"


class Home:
    """A home with a service that has a release, a kubeconfig of two contexts, and the fleets of a test."""

    def __init__(self, path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self.path, self._capsys = path, capsys
        (path / "kubeconfig").write_text(KUBECONFIG, encoding="utf-8")
        monkeypatch.setenv("KUBECONFIG", str(path / "kubeconfig"))
        monkeypatch.setenv("EDGELOOP_ROOMS", str(path / "rooms"))
        self.serves("agent", "[0, 1]")
        self.app = App(load_settings(path))
        self.app.fleet.add_release("rater", "3", NEW)

    def serves(self, target: str, rings: str = "[0, 1]") -> None:
        self.write("services/rater.yaml", SERVICE % (rings, target))

    def write(self, name: str, text: str) -> None:
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    def push(self, kind: str = "predictor", release: str = NEW) -> None:
        Images(self.app.fleet.database).add("rater", release, kind, "registry.example.com/rater", digest(b"image"))

    def approve(self) -> None:
        made = Release(service="rater", version="3", run_id="r", dataset="d", layers=[])
        self.app.store.create(release_key("rater", made.digest), made.to_bytes())
        self.app.fleet.add_release("rater", "3", made.digest)
        self.app.channel.approve("rater", made.digest)
        self.push(release=made.digest)

    def run(self, *words: str) -> tuple[int, Any]:
        with pytest.raises(SystemExit) as ended:
            main(["--home", str(self.path), "--json", *words])
        return int(str(ended.value.code or 0)), json.loads(self._capsys.readouterr().out)

    def text(self, *words: str) -> str:
        with pytest.raises(SystemExit) as ended:
            main(["--home", str(self.path), *words])
        assert not ended.value.code, self._capsys.readouterr().err
        return self._capsys.readouterr().out


def heard(home: Home, nodes: list[tuple[str, int, str | None, str | None]], **more: Any) -> None:
    """What these nodes (name, ring, serving, wanted) say is heard now."""
    broker = MemoryHub().connect("test")
    at = now()
    for node, ring, serving, wanted in nodes:
        base = {"node": node, "ring": ring, "service": "rater", "at": at, "online": True}
        report = Report.model_validate(base | {"serving": serving, "wanted": wanted} | more)
        broker.publish(report_topic(node, "rater"), report.model_dump_json().encode(), retain=True)
    hear(Roster(home.app.fleet.database), broker, at)
    broker.close()
