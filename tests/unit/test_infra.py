"""What infra/ promises can be read from its files; nothing here needs a cluster or a container engine."""

from __future__ import annotations

import json
import os
import queue
import re
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from paho.mqtt import client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from edgeloop.samples import topics
from tests.servers.ports import free_ports

ROOT = Path(__file__).resolve().parents[2]
INFRA = ROOT / "infra"
OVERLAYS = ["k8s/overlays/dev", "k8s/overlays/production", "kubeedge/ring-0", "kubeedge/ring-1"]
ONE_SHOT = {"buckets", "channel", "register"}
METRICS = {
    "edgeloop_requests_total": {"service", "outcome"},
    "edgeloop_request_seconds_bucket": {"service", "le"},
    "edgeloop_captured_total": {"service", "selected_by"},
    "edgeloop_spool_bytes": set(),
    "edgeloop_spool_samples": set(),
    "edgeloop_release_info": {"service", "digest"},
}
SECRET_NAME = re.compile(r"PASSWORD|SECRET|ACCESS_KEY|TOKEN|CONNECTION_URL|BACKEND_STORE_URI")

Manifest = dict[str, Any]


def _need(tool: str, package: str) -> None:
    if shutil.which(tool):
        return
    message = f"{tool} is not on PATH: install {package}"
    if os.environ.get("CI") == "true":
        pytest.fail(message)
    pytest.skip(message)


@cache
def _build(folder: str) -> tuple[Manifest, ...]:
    command = ["kubectl", "kustomize", str(INFRA / folder)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return tuple(doc for doc in yaml.safe_load_all(done.stdout) if doc)


@pytest.fixture(params=OVERLAYS)
def manifests(request: pytest.FixtureRequest) -> tuple[Manifest, ...]:
    _need("kubectl", "the Kubernetes client (kubectl)")
    return _build(request.param)


def _pods(manifests: tuple[Manifest, ...]) -> Iterator[tuple[str, Manifest]]:
    for doc in manifests:
        template = doc.get("spec", {}).get("template")
        if template:
            yield doc["kind"], template["spec"]


def _containers(manifests: tuple[Manifest, ...]) -> list[Manifest]:
    return [c for _, pod in _pods(manifests) for c in pod["containers"] + pod.get("initContainers", [])]


def _compose() -> Manifest:
    loaded: Manifest = yaml.safe_load((INFRA / "compose.yaml").read_text(encoding="utf-8"))
    return loaded


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        value = value.values()
    if isinstance(value, str):
        yield value
    elif not isinstance(value, (int, float, type(None))):
        for item in value:
            yield from _strings(item)


def _yaml_files() -> list[Path]:
    return sorted(INFRA.rglob("*.yaml"))


@pytest.mark.parametrize("path", _yaml_files(), ids=lambda p: p.relative_to(INFRA).as_posix())
def test_every_yaml_parses(path: Path) -> None:
    assert any(yaml.safe_load_all(path.read_text(encoding="utf-8")))


@pytest.mark.parametrize(("overlay", "namespace"), [("dev", "edgeloop-dev"), ("production", "edgeloop")])
def test_overlay_puts_everything_into_its_namespace(overlay: str, namespace: str) -> None:
    _need("kubectl", "the Kubernetes client (kubectl)")
    built = _build(f"k8s/overlays/{overlay}")
    assert {d["metadata"].get("namespace", d["metadata"]["name"]) for d in built} == {namespace}
    names = {(d["kind"], d["metadata"]["name"]) for d in built}
    assert {("Deployment", n) for n in ("prefect", "mlflow", "worker")} <= names
    assert ("DaemonSet", "edgeloop-node") in names


def test_containers_are_bounded_and_locked(manifests: tuple[Manifest, ...]) -> None:
    for container in _containers(manifests):
        resources, security = container["resources"], container["securityContext"]
        assert {"cpu", "memory"} == set(resources["requests"]) == set(resources["limits"]), container["name"]
        assert security["allowPrivilegeEscalation"] is False, container["name"]
        assert security["capabilities"] == {"drop": ["ALL"]}, container["name"]


def test_pods_run_without_root_and_without_a_token(manifests: tuple[Manifest, ...]) -> None:
    for _, pod in _pods(manifests):
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] > 0
        assert pod["automountServiceAccountToken"] is False
        assert pod["enableServiceLinks"] is False


def test_what_serves_is_probed(manifests: tuple[Manifest, ...]) -> None:
    serving = [(pod, c) for kind, pod in _pods(manifests) if kind != "Job" for c in pod["containers"]]
    assert serving
    for _, container in serving:
        ports = {p["name"] for p in container["ports"]}
        for probe in ("livenessProbe", "readinessProbe"):
            check = container[probe].get("httpGet") or container[probe]["tcpSocket"]
            assert check["port"] in ports, container["name"]


def test_mounts_have_a_volume(manifests: tuple[Manifest, ...]) -> None:
    for _, pod in _pods(manifests):
        volumes = {v["name"] for v in pod.get("volumes", [])}
        containers = pod["containers"] + pod.get("initContainers", [])
        assert {m["name"] for c in containers for m in c["volumeMounts"]} == volumes


def test_manifests_hold_no_secret(manifests: tuple[Manifest, ...]) -> None:
    assert "Secret" not in {d["kind"] for d in manifests}
    for container in _containers(manifests):
        for variable in container.get("env", []):
            plain = variable.get("value", "")
            if SECRET_NAME.search(variable["name"]):
                assert not plain or plain.startswith("sqlite:"), variable["name"]
    for doc in manifests:
        if doc["kind"] == "ConfigMap":
            assert not [key for key in doc["data"] if SECRET_NAME.search(key)]


def test_selectors_find_their_own_pods_only(manifests: tuple[Manifest, ...]) -> None:
    nodes = [_daemonset(_build(folder)) for folder in OVERLAYS[1:]]
    for one in nodes:
        assert _matched(one["spec"]["selector"]["matchLabels"], nodes) == [one["metadata"]["name"]]
    workloads = [d for d in manifests if "template" in d.get("spec", {})]
    for service in (d for d in manifests if d["kind"] == "Service"):
        assert _matched(service["spec"]["selector"], workloads) == [service["metadata"]["name"]]


def _matched(selector: dict[str, str], workloads: list[Manifest]) -> list[str]:
    found = []
    for workload in workloads:
        if selector.items() <= workload["spec"]["template"]["metadata"]["labels"].items():
            found.append(workload["metadata"]["name"])
    return found


def _daemonset(manifests: tuple[Manifest, ...]) -> Manifest:
    (found,) = (d for d in manifests if d["kind"] == "DaemonSet")
    return found


@pytest.mark.parametrize("ring", [0, 1])
def test_ring_selects_its_group_and_surges(ring: int) -> None:
    _need("kubectl", "the Kubernetes client (kubectl)")
    built = _build(f"kubeedge/ring-{ring}")
    spec = _daemonset(built)["spec"]
    groups = yaml.safe_load_all((INFRA / "kubeedge/nodegroups.yaml").read_text(encoding="utf-8"))
    assert f"ring-{ring}" in {g["metadata"]["name"] for g in groups}
    assert spec["template"]["spec"]["nodeSelector"]["apps.kubeedge.io/belonging-to"] == f"ring-{ring}"
    assert "affinity" not in spec["template"]["spec"]
    assert spec["updateStrategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
    (config,) = (yaml.safe_load(d["data"]["node.yaml"]) for d in built if "node.yaml" in d.get("data", {}))
    assert config["ring"] == ring


def test_plain_daemonset_keeps_off_the_groups() -> None:
    _need("kubectl", "the Kubernetes client (kubectl)")
    pod = _daemonset(_build("k8s/overlays/production"))["spec"]["template"]["spec"]
    required = pod["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    (term,) = required["nodeSelectorTerms"]
    assert term["matchExpressions"] == [{"key": "apps.kubeedge.io/belonging-to", "operator": "DoesNotExist"}]


def test_every_image_has_a_fixed_tag(manifests: tuple[Manifest, ...]) -> None:
    images = [c["image"] for c in _containers(manifests)]
    images += [s["image"] for s in _compose()["services"].values()]
    for dockerfile in (INFRA / "docker").glob("*.Dockerfile"):
        images += re.findall(r"^FROM (\S+)", dockerfile.read_text(encoding="utf-8"), re.MULTILINE)
    assert images
    for image in images:
        tag = image.rpartition("/")[2].partition(":")[2]
        assert tag and "latest" not in tag, image


def test_compose_services_have_health_checks() -> None:
    for name, service in _compose()["services"].items():
        if name in ONE_SHOT:
            assert service["restart"] == "no", name
        else:
            assert service["healthcheck"]["test"][0] == "CMD", name


def test_compose_waits_for_conditions_that_can_come_true() -> None:
    services = _compose()["services"]
    for name, service in services.items():
        for other, wait in service.get("depends_on", {}).items():
            wanted = "service_completed_successfully" if other in ONE_SHOT else "service_healthy"
            assert wait["condition"] == wanted, f"{name} waits for {other}"


def test_compose_files_and_volumes_exist() -> None:
    compose = _compose()
    for service in compose["services"].values():
        for mount in service.get("volumes", []):
            source = mount.split(":")[0]
            assert source in compose["volumes"] or (INFRA / source).is_file(), mount
        build = service.get("build")
        assert not build or (INFRA / build["context"] / build["dockerfile"]).is_file()


def test_compose_is_published_on_loopback_only() -> None:
    ports = [p for s in _compose()["services"].values() for p in s.get("ports", [])]
    assert ports
    assert all(p.startswith("127.0.0.1:") for p in ports)
    assert len({p.split(":")[1] for p in ports}) == len(ports)


def test_compose_takes_every_secret_from_outside() -> None:
    example = (INFRA / "env.example").read_text(encoding="utf-8")
    asked = {m for text in _strings(_compose()) for m in re.findall(r"\$\{(\w+):\?", text)}
    assert asked == set(re.findall(r"^(\w+)=$", example, re.MULTILINE))
    for service in _compose()["services"].values():
        for name, value in service.get("environment", {}).items():
            if SECRET_NAME.search(name):
                assert "${" in value, name
    assert not [text for text in _strings(_compose()) if re.search(r"\$\{\w+(?!\w|:\?)", text)]


@pytest.mark.parametrize("name", ["cloud", "node"])
def test_dockerfile_installs_hashed_requirements_as_nobody_special(name: str) -> None:
    text = (INFRA / f"docker/{name}.Dockerfile").read_text(encoding="utf-8")
    installs = re.findall(r"pip install (.*)", text)
    assert len(installs) == 2
    assert "--require-hashes" in installs[0]
    assert {"--no-deps", "--no-index"} <= set(installs[1].split())
    assert "://" not in text
    assert re.findall(r"^USER (.*)", text, re.MULTILINE) == ["10001:10001"]
    assert text.rindex("USER") < text.rindex("CMD")


def test_dashboard_uses_metrics_that_nodes_expose() -> None:
    dashboard = json.loads((INFRA / "grafana/nodes.json").read_text(encoding="utf-8"))
    queries = [t["expr"] for p in dashboard["panels"] for t in p["targets"]]
    queries += [v["query"] for v in dashboard["templating"]["list"]]
    assert 0 < len(dashboard["panels"]) <= 6
    for query in queries:
        names = re.findall(r"edgeloop_\w+", query)
        known = {"instance"}.union(*(METRICS[name] for name in names))
        for labels in re.findall(r"by \(([^)]*)\)", query) + re.findall(r"{(\w+)[=~!]", query):
            assert set(re.split(r",\s*", labels)) <= known, query


def test_acl_grants_the_topics_of_the_code() -> None:
    acl = (INFRA / "mosquitto/acl.example").read_text(encoding="utf-8")
    for leaf, right in (("input", "write"), ("feedback", "write"), ("result", "read")):
        assert f"pattern {right} {topics.device_topic('+', '%u', leaf)}\n" in acl
    for ring, node in enumerate(("edge-1", "edge-2")):
        block = acl.split(f"user {node}\n")[1].split("\n\n")[0].splitlines()
        wanted = {f"topic read {topics.device_topic('digits', '+', leaf)}" for leaf in ("input", "feedback")}
        wanted |= {f"topic write {topics.device_topic('digits', '+', 'result')}"}
        wanted |= {f"topic write {topics.report_topic(node, 'digits')}", f"topic read {topics.FLUSH}"}
        wanted |= {f"topic write {topics.alive_topic(node)}"}
        wanted |= {f"topic read {topics.wanted_topic('digits', ring)}"}
        assert set(block) == wanted
    assert f"topic read {topics.NODES}\n" in acl.split("user cloud\n")[1]
    assert f"topic write {topics.MARKS}/+\n" in acl.split("user cloud\n")[1]


def test_no_broker_of_ours_drops_reports_of_a_large_fleet() -> None:
    for file in {*(INFRA / "mosquitto").glob("*.conf"), *INFRA.rglob("mosquitto.conf")}:
        assert {"max_queued_messages 0", "max_queued_bytes 268435456"} <= {*file.read_text("utf-8").splitlines()}, file


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[tuple[int, Path]]:
    """The production broker with its own files, on a free port: (port, certificate)."""
    for tool in ("mosquitto", "mosquitto_passwd", "openssl"):
        _need(tool, "the packages mosquitto and openssl")
    port, plain = free_ports(2)
    _certificate(tmp_path)
    for user in ("cam-1", "cam-2", "edge-1", "cloud"):
        _password(tmp_path / "passwords", user)
    text = (INFRA / "mosquitto/mosquitto.conf").read_text(encoding="utf-8")
    moved = {
        "/mosquitto/secrets": str(tmp_path),
        "/mosquitto/data": str(tmp_path),
        "/mosquitto/config/acl": str(INFRA / "mosquitto/acl.example"),
        "listener 8883": f"listener {port} 127.0.0.1",
        "listener 1883": f"listener {plain}",
    }
    for old, new in moved.items():
        assert old in text
        text = text.replace(old, new)
    # A broker started by root would drop to a user that cannot read this directory.
    (tmp_path / "test.conf").write_text("user root\n" + text, encoding="utf-8")
    command = ["mosquitto", "-c", str(tmp_path / "test.conf")]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        try:
            _await_port(port, process)
            yield port, tmp_path / "server.crt"
        finally:
            process.terminate()


def _password(file: Path, user: str) -> None:
    flags = ["-b"] if file.exists() else ["-b", "-c"]
    subprocess.run(["mosquitto_passwd", *flags, str(file), user, f"{user}-word"], check=True)


def _certificate(folder: Path) -> None:
    files = ["-keyout", str(folder / "server.key"), "-out", str(folder / "server.crt")]
    name = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", *files, *name]
    subprocess.run(command, check=True, capture_output=True)


def _await_port(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        assert process.poll() is None, "mosquitto refused its configuration"
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    pytest.fail(f"mosquitto did not listen on {port} within 60 s")


class _Client:
    """One MQTT 5 user, since only version 5 says that a publish was refused."""

    def __init__(self, broker: tuple[int, Path], user: str, password: str) -> None:
        port, certificate = broker
        self.connected: queue.Queue[int] = queue.Queue()
        self.published: queue.Queue[int] = queue.Queue()
        self.subscribed: queue.Queue[int] = queue.Queue()
        self.received: queue.Queue[str] = queue.Queue()
        self.mqtt = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=user, protocol=MQTTProtocolVersion.MQTTv5)
        self.mqtt.username_pw_set(user, password)
        self.mqtt.tls_set_context(ssl.create_default_context(cafile=str(certificate)))
        self.mqtt.on_connect = lambda _c, _u, _f, code, _p: self.connected.put(code.value)
        self.mqtt.on_publish = lambda _c, _u, _m, code, _p: self.published.put(code.value)
        self.mqtt.on_subscribe = lambda _c, _u, _m, codes, _p: self.subscribed.put(codes[0].value)
        self.mqtt.on_message = lambda _c, _u, message: self.received.put(message.topic)
        self.mqtt.connect("127.0.0.1", port)
        self.mqtt.loop_start()

    def may_publish(self, topic: str) -> bool:
        self.mqtt.publish(topic, b"x", qos=1)
        return self.published.get(timeout=60) != 135

    def subscribe(self, topic: str) -> None:
        self.mqtt.subscribe(topic, qos=1)
        self.subscribed.get(timeout=60)

    def close(self) -> None:
        self.mqtt.disconnect()
        self.mqtt.loop_stop()


def test_production_broker_keeps_everyone_to_their_topics(broker: tuple[int, Path]) -> None:
    users = {name: _Client(broker, name, f"{name}-word") for name in ("cam-1", "edge-1", "cloud")}
    try:
        assert [u.connected.get(timeout=60) for u in users.values()] == [0, 0, 0]
        users["edge-1"].subscribe(f"{topics.PREFIX}/+/+/input")
        camera, node, cloud = users.values()
        assert not camera.may_publish(topics.device_topic("digits", "cam-2", "input"))
        assert not camera.may_publish(topics.report_topic("edge-1", "digits"))
        assert not camera.may_publish(topics.wanted_topic("digits", 0))
        # Allowed to a device, but of a service that this node does not serve: it must not arrive.
        assert camera.may_publish(topics.device_topic("wine-rater", "cam-1", "input"))
        assert camera.may_publish(topics.device_topic("digits", "cam-1", "input"))
        assert node.received.get(timeout=60) == topics.device_topic("digits", "cam-1", "input")
        assert node.may_publish(topics.device_topic("digits", "cam-1", "result"))
        assert node.may_publish(topics.report_topic("edge-1", "digits"))
        assert not node.may_publish(topics.report_topic("edge-2", "digits"))
        assert cloud.may_publish(topics.wanted_topic("digits", 1))
        assert not cloud.may_publish(topics.device_topic("digits", "cam-1", "input"))
    finally:
        for user in users.values():
            user.close()


def test_production_broker_refuses_a_wrong_password(broker: tuple[int, Path]) -> None:
    client = _Client(broker, "cam-2", "guess")
    try:
        assert client.connected.get(timeout=60) == 135
    finally:
        client.close()
