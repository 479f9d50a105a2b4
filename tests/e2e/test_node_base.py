"""The base install alone is a node: without anything that only the cloud needs it answers, captures and ends well."""

from __future__ import annotations

import base64
import json
import signal
import subprocess
from pathlib import Path

import pytest

from tests.e2e.nodes import IMAGE, TABULAR, Stage, jpeg, pets, row
from tests.servers.peers import base_install

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]  # the first time it installs
CLOUD = ["tensorflow", "keras", "sklearn", "prefect", "mlflow", "pandas", "great_expectations", "deltalake", "pyarrow"]
_FIND = "import importlib.util as u, sys; print([n for n in sys.argv[1:] if u.find_spec(n)])"


def test_a_base_install_is_a_node(stage: Stage, regressors: dict[int, bytes], shared: Path) -> None:
    programs = base_install()
    found = subprocess.run(
        [programs / "python", "-c", _FIND, "edgeloop", *CLOUD], capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == "['edgeloop']"

    config, layers = pets(shared)
    rows, images = stage.releaser.regressor(regressors[1]), stage.releaser.publish(config, layers, [jpeg(10)])
    stage.releaser.want(rows)
    stage.releaser.want(images)
    node = stage.use([str(programs / "edgeloop"), "node"], services=[TABULAR, IMAGE])
    stage.serving(rows)
    stage.serving(images)

    stage.device.send(1, row(1))
    stage.device.send(2, jpeg(200), IMAGE)
    number, picture = stage.device.answer(1), stage.device.answer(2)
    assert float(number["prediction"]) == pytest.approx(1.75, abs=1e-3) and number["captured"]
    assert picture["prediction"] in ("cat", "dog") and picture["captured"]
    status, body = node.get(f"/v1/models/{TABULAR}:predict", b'{"instances": [[1, 2, 4]]}')
    assert status == 200 and json.loads(body)["predictions"] == pytest.approx([7.0], abs=1e-3)
    asked = {"instances": [{"b64": base64.b64encode(jpeg(90)).decode()}]}
    status, body = node.get(f"/v1/models/{IMAGE}:predict", json.dumps(asked).encode())
    assert status == 200 and json.loads(body)["predictions"][0] in ("cat", "dog"), body

    assert node.signal(signal.SIGTERM) == 0, node.log()[-2000:]
    assert sorted(s.device for s in stage.captured()) == ["d1", "web"]
    assert {s.payload for s in stage.captured(IMAGE)} == {jpeg(200), jpeg(90)}
