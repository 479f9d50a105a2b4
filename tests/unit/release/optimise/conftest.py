"""The trained backbone that variants are made of, in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.release.optimise.bars import Bars

MAKE = """
import sys
from pathlib import Path
from edgeloop.exports.litert import export_litert, save_keras
from tests.unit.learning.tiny import small_backbone
folder, model = Path(sys.argv[1]), small_backbone()
export_litert(model, folder / "backbone.tflite", "dynamic")
save_keras(model, folder / "backbone.keras")
export_litert(small_backbone(7), folder / "other.tflite", "dynamic")
"""
ROOT = Path(__file__).resolve().parents[4]


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``backbone.keras`` and ``backbone.tflite`` of sixteen features; ``other.tflite`` is another."""
    pytest.importorskip("tensorflow")
    folder = tmp_path_factory.mktemp("trained")
    subprocess.run([sys.executable, "-c", MAKE, str(folder)], check=True, capture_output=True, cwd=ROOT)
    return folder


@pytest.fixture
def world(tmp_path: Path, trained: Path) -> Bars:
    """A fresh store with a model version whose backbone was trained here."""
    return Bars(tmp_path, trained)
