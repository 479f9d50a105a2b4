"""Fixtures of the tests of a whole node."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.e2e.nodes import Stage


@pytest.fixture(scope="session")
def regressors() -> dict[int, bytes]:
    """ONNX models that answer ``factor * (a + b + c)``, by factor."""
    from skl2onnx import to_onnx
    from sklearn.linear_model import LinearRegression

    rows = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    models = {}
    for factor in (1, 2, 3):
        fitted = LinearRegression().fit(rows, factor * rows.sum(axis=1))
        models[factor] = to_onnx(fitted, rows[:1]).SerializeToString()
    return models


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    made = Stage(tmp_path)
    try:
        yield made
    finally:
        made.close()
