"""A real MLflow server calls the receiver when an alias is set or deleted, and nobody else can."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

from edgeloop.clients.registry import MlflowRegistry, RegistryUnavailable
from edgeloop.clients.registry_hooks import HOOK, _webhooks, ensure_webhook
from edgeloop.promotion.hook import Hook
from tests.contract.mlflow_server import running_mlflow
from tests.servers.ports import free_port, wait_until

SECRET = "a word that only two know, and long"


class Receiver:
    """The receiver on a port of its own."""

    def __init__(self, listener: socket.socket) -> None:
        self.asked: list[str] = []
        self.hook = Hook(SECRET, self.asked.append, lambda name: name.startswith("service-"), wait=0.05)
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}/mlflow"

    def until_asked(self, *services: str) -> None:
        wait_until("MLflow's call", lambda: self.asked == list(services), seconds=20)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        made = Receiver(listener)
        server = uvicorn.Server(uvicorn.Config(made.hook, log_level="warning", lifespan="off"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            wait_until("the receiver", lambda: server.started, seconds=20)
            yield made
        finally:
            server.should_exit = True
            thread.join()


def a_model(url: str) -> tuple[str, Callable[[str], None], Callable[[], None]]:
    """A new model with two versions, and how to set and delete its alias as MLflow's page does."""
    import mlflow

    client: Any = mlflow.MlflowClient(url, url)
    name = f"service-{time.monotonic_ns():x}"
    client.create_registered_model(name)
    for _ in range(2):
        client.create_model_version(name, "s3://elsewhere/model")
    return (
        name,
        lambda version: client.set_registered_model_alias(name, "champion", version),
        lambda: client.delete_registered_model_alias(name, "champion"),
    )


def hooks(url: str) -> list[dict[str, Any]]:
    return [one for one in _webhooks(MlflowRegistry(url)) if one["name"] == HOOK]


def test_setting_and_deleting_an_alias_is_heard(mlflow_url: str, receiver: Receiver) -> None:
    ensure_webhook(MlflowRegistry(mlflow_url), receiver.url, SECRET)
    name, set_alias, delete_alias = a_model(mlflow_url)
    set_alias("1")
    receiver.until_asked(name)
    delete_alias()
    receiver.until_asked(name, name)
    assert receiver.hook.counts["accepted"] == 2
    assert "BadSignature" not in receiver.hook.counts


def test_registering_again_changes_nothing_but_what_is_new(mlflow_url: str, receiver: Receiver) -> None:
    registry = MlflowRegistry(mlflow_url)
    first = ensure_webhook(registry, "http://127.0.0.1:9/mlflow", "an older secret that nobody knows now")
    assert [ensure_webhook(registry, receiver.url, SECRET) for _ in range(3)] == [first] * 3
    assert [one["url"] for one in hooks(mlflow_url)] == [receiver.url]
    name, set_alias, _ = a_model(mlflow_url)
    set_alias("2")
    receiver.until_asked(name)


def test_a_second_webhook_of_the_name_goes(mlflow_url: str) -> None:
    registry = MlflowRegistry(mlflow_url)
    ensure_webhook(registry, "http://127.0.0.1:9/mlflow", SECRET)
    events = [{"entity": "MODEL_VERSION_ALIAS", "action": "CREATED"}]
    registry.ask("POST", "/api/2.0/mlflow/webhooks", name=HOOK, url="http://127.0.0.1:9/twice", events=events)
    assert len(hooks(mlflow_url)) == 2
    ensure_webhook(registry, "http://127.0.0.1:9/mlflow", SECRET)
    assert len(hooks(mlflow_url)) == 1


def test_another_secret_is_refused(mlflow_url: str, receiver: Receiver) -> None:
    ensure_webhook(MlflowRegistry(mlflow_url), receiver.url, "a word that somebody else knows, long too")
    _, set_alias, _ = a_model(mlflow_url)
    set_alias("1")
    wait_until("MLflow's call", lambda: receiver.hook.counts["BadSignature"] == 1, seconds=20)
    assert receiver.asked == []


def test_an_address_that_mlflow_does_not_take_is_named(mlflow_url: str) -> None:
    with pytest.raises(RegistryUnavailable, match="Invalid webhook URL scheme"):
        ensure_webhook(MlflowRegistry(mlflow_url), "ftp://127.0.0.1/mlflow", SECRET)


def test_nobody_without_the_secret_is_heard(receiver: Receiver) -> None:
    assert httpx.post(receiver.url, content=b"{}").status_code == 401
    assert httpx.post(receiver.url, content=b"x" * 100_000).status_code == 413
    assert httpx.get(receiver.url).status_code == 405
    assert receiver.asked == []


def test_the_secret_outlives_a_restart_of_mlflow(tmp_path: Path, receiver: Receiver) -> None:
    port = free_port()
    with running_mlflow(tmp_path, port) as url:
        ensure_webhook(MlflowRegistry(url), receiver.url, SECRET)
    with running_mlflow(tmp_path, port) as url:
        name, set_alias, _ = a_model(url)
        set_alias("1")
        receiver.until_asked(name)
