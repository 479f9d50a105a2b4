"""A checkpoint comes back bit for bit, or training starts over with a line that says why."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from edgeloop.learning.checkpoint import Checkpoints, State, same_shapes

IDENTITY = {"job": "sha256:1", "keras": "3.15.1", "precision": "float32"}


def state(epoch: int = 2) -> State:
    weights = [np.arange(6, dtype=np.float32).reshape(2, 3), np.asarray(4.0, np.float32)]
    history = [{"loss": 0.5 / n, "accuracy": 0.5, "seconds": 1.0} for n in range(1, epoch + 1)]
    return State(epoch, weights, [np.asarray(7, np.int64)], [w + 1 for w in weights], 1, 0.25, history)


def alike(a: State, b: State) -> bool:
    def plain(s: State) -> list[Any]:
        groups = [[(x.dtype, x.shape, x.tobytes()) for x in group] for group in (s.weights, s.optimizer, s.best)]
        return [*groups, s.epoch, s.best_epoch, s.best_loss, s.history]

    return plain(a) == plain(b)


def kept(path: Path | None, lines: list[str], **changes: str) -> Checkpoints:
    return Checkpoints(path, IDENTITY | changes, lines.append)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "checkpoint.npz"


def test_what_was_saved_comes_back(path: Path) -> None:
    lines: list[str] = []
    kept(path, lines).save(state())
    found = kept(path, lines).load(lambda _: True)
    assert found is not None and alike(found, state())
    assert found.waited == 1
    assert lines == ["going on after epoch 2, from its checkpoint"]
    assert [p.name for p in path.parent.iterdir()] == [path.name]


@settings(deadline=None, max_examples=30)
@given(
    st.lists(arrays(np.float32, array_shapes(min_dims=0, max_side=3)), max_size=4),
    st.floats(allow_nan=False),
)
def test_any_weights_come_back_bit_for_bit(
    tmp_path_factory: pytest.TempPathFactory, weights: list[Any], loss: float
) -> None:
    path = tmp_path_factory.mktemp("kept") / "checkpoint.npz"
    given_state = State(1, weights, [], weights[:1], 1, loss, [{"loss": loss}])
    kept(path, []).save(given_state)
    found = kept(path, []).load(lambda _: True)
    assert found is not None and alike(found, given_state)


def test_where_nothing_is_kept_nothing_is_said(path: Path) -> None:
    lines: list[str] = []
    assert kept(path, lines).load(lambda _: True) is None
    kept(None, lines).save(state())
    assert kept(None, lines).load(lambda _: True) is None
    assert lines == []


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"keras": "3.16.0"}, "its keras is 3.15.1, not 3.16.0"),
        ({"job": "sha256:2"}, "its job is sha256:1, not sha256:2"),
        ({"precision": "mixed"}, "its precision is float32, not mixed"),
        ({"tensorflow": "2.21.0"}, "its tensorflow is None, not 2.21.0"),
    ],
)
def test_a_checkpoint_of_another_training_is_left(path: Path, changes: dict[str, str], why: str) -> None:
    lines: list[str] = []
    kept(path, lines).save(state())
    assert kept(path, lines, **changes).load(lambda _: True) is None
    assert lines == [f"the checkpoint is of no use, {why}: training starts over"]


def test_a_checkpoint_of_another_model_is_left(path: Path) -> None:
    lines: list[str] = []
    kept(path, lines).save(state())
    assert kept(path, lines).load(lambda s: same_shapes(s.weights, [(9, 9)])) is None
    assert lines == ["the checkpoint is of no use, it is of another model: training starts over"]


def test_a_checkpoint_cut_anywhere_or_turned_over_is_left(path: Path) -> None:
    kept(path, []).save(state())
    whole = path.read_bytes()
    broken = [whole[:cut] for cut in range(0, len(whole), 97)]
    broken += [whole[: len(whole) // 4] + b"\xff" * 40 + whole[len(whole) // 4 + 40 :], b"{}", b"not a file"]
    for content in broken:
        path.write_bytes(content)
        lines: list[str] = []
        assert kept(path, lines).load(lambda _: True) is None
        assert len(lines) == 1 and "training starts over" in lines[0]


def test_a_full_disk_costs_the_checkpoint_and_not_the_training(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    kept(path, lines).save(state(1))

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        kept(path, lines).save(state(2))
    assert lines == ["no checkpoint after epoch 2 (No space left on device): make room on the disk"]
    assert [p.name for p in path.parent.iterdir()] == [path.name], "the half-written one is gone"
    found = kept(path, []).load(lambda _: True)
    assert found is not None and alike(found, state(1)), "the former one is still there"
