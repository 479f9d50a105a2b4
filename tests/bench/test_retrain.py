"""``edgeloop bench retrain`` runs against a real MLflow server, and what it prints says what it did."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.e2e
EXTRACTOR = "mobilenet_v1_1.0_224_quant_embedding_extractor.tflite"


def measured(home: Path, shared: Path) -> Any:
    words = ["--data", str(shared / "datasets"), "--backbone", str(shared / "models" / EXTRACTOR)]
    measure = ["--json", "bench", "retrain", *words, "--samples", "300", "--runs", "1", "--full", "0"]
    done = subprocess.run(
        [sys.executable, "-m", "edgeloop.cli", *measure],
        env={**os.environ, "EDGELOOP_HOME": str(home)},
        capture_output=True,
        text=True,
        check=False,
        timeout=250,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def test_a_retrain_is_measured_from_data_to_registered_candidate(shared: Path, tmp_path: Path) -> None:
    first = measured(tmp_path, shared)
    assert 200 < first["samples"] < 400
    assert first["replay"] == 150
    assert all(first["seconds"][stage] > 0 for stage in ("plan", "train", "evaluate", "register", "total"))
    assert 0.5 < first["accuracy"] <= 1
    assert first["full"] is None
    again = measured(tmp_path, shared)
    assert again["feature_seconds"] < first["feature_seconds"] / 3, "features are kept between runs"
    assert again["accuracy"] == first["accuracy"]
