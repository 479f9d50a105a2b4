"""The node's bench runs, and what it measures that no noise can change holds: memory, and that a swap fails nobody."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.e2e


@pytest.mark.timeout(240)
def test_a_node_is_small_and_swaps_fail_no_request(tmp_path: Path, shared: Path) -> None:
    backbone = shared / "models" / "mobilenet_v1_1.0_224_quant_embedding_extractor.tflite"
    command = [sys.executable, "-m", "edgeloop.cli", "--home", str(tmp_path), "bench", "edge"]
    command += [
        "--backbone",
        str(backbone),
        "--runs",
        "1",
        "--seconds",
        "1",
        "--messages",
        "300",
        "--swaps",
        "4",
        "--json",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=220)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout)
    assert 0 < found["import_mb"] < 80
    assert 0 < found["resident_mb"] < 150
    assert found["swap"]["failed"] == 0 and found["swap"]["answers"] > 100
    ratios = [found["p50_ms"]["ratio"], found["throughput"]["ratio"], found["mqtt"]["ratio"], found["swap"]["ratio"]]
    assert all(ratio > 0 for ratio in ratios)
    assert found["kserve_v2"] is None
