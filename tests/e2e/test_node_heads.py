"""A node as a process serves a head with a hidden layer as it serves a linear one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgeloop.clients.models import read_head
from edgeloop.learning.trainers.kinds import KINDS
from edgeloop.samples.service import Head
from tests.e2e.nodes import IMAGE, Stage, jpeg, pets

pytestmark = pytest.mark.timeout(240)


@pytest.mark.parametrize("kind", ["ranpac", "mlp"])
def test_a_trained_hidden_head_answers_on_a_node(stage: Stage, shared: Path, kind: str) -> None:
    config, layers = pets(shared)
    width = read_head(layers["head"]).width
    features = np.random.default_rng(0).uniform(0, 2, (60, width)).astype(np.float32)
    truth = ["cat", "dog"] * 30
    layers["head"] = KINDS[kind](Head(kind="mlp", units=100), False).fit(features, truth, ["cat", "dog"]).to_bytes()
    images = stage.releaser.publish(config, layers, [jpeg(10)])
    stage.releaser.want(images)
    stage.use(services=[IMAGE])
    stage.serving(images)
    stage.device.send(2, jpeg(200), IMAGE)
    answer = stage.device.answer(2)
    assert answer["prediction"] in {"cat", "dog"}
    assert answer["model"] == images.digest
