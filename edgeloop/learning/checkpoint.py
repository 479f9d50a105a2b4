"""What a full training needs to go on after it was cut off, in one file that is whole or not there.

A checkpoint that cannot be used costs the epochs that it would have saved and nothing else: it is said, and training
starts over.
"""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeloop.learning.full_config import Say

Arrays = list[npt.NDArray[Any]]
_FORMAT = 1
_GROUPS = ("weights", "optimizer", "best")


@dataclass
class State:
    """Everything that an epoch hands to the next; random numbers follow from the seed and the epoch's number."""

    epoch: int = 0
    """Epochs that are done."""
    weights: Arrays = field(default_factory=list)
    optimizer: Arrays = field(default_factory=list)
    best: Arrays = field(default_factory=list)
    """Weights of the best epoch; empty where nothing is held out."""
    best_epoch: int = 0
    best_loss: float = float("inf")
    history: list[dict[str, float]] = field(default_factory=list)

    @property
    def waited(self) -> int:
        """Epochs since the best one."""
        return self.epoch - self.best_epoch


class Checkpoints:
    """The checkpoint of one training, in one file."""

    def __init__(self, path: Path | None, identity: Mapping[str, str], say: Say) -> None:
        """Keep it at ``path``, or nowhere.

        Args:
            path: of the file; its folder exists.
            identity: what a training must have in common with the one that wrote it: job, versions, precision.
            say: told what becomes of it.
        """
        self._path, self._identity, self._say = path, dict(identity), say

    def load(self, fits: Callable[[State], bool]) -> State | None:
        """What an earlier run left; None if there is nothing, or nothing that can be used and ``fits``."""
        if self._path is None or not self._path.exists():
            return None
        try:
            with self._path.open("rb") as source, np.load(source, allow_pickle=False) as parts:
                told = json.loads(str(parts["told"]))
                other = self._differs(told["identity"])
                state = None if other else _state(told, parts)
            if state is not None and not fits(state):
                state, other = None, "it is of another model"
        except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
            other = f"it cannot be read ({type(error).__name__})"
            state = None
        if state is None:
            self._say(f"the checkpoint is of no use, {other}: training starts over")
        else:
            self._say(f"going on after epoch {state.epoch}, from its checkpoint")
        return state

    def _differs(self, identity: Mapping[str, str]) -> str | None:
        wanted = {"format": str(_FORMAT), **self._identity}
        for name in sorted({*wanted, *identity}):
            if wanted.get(name) != identity.get(name):
                return f"its {name} is {identity.get(name)}, not {wanted.get(name)}"
        return None

    def save(self, state: State) -> None:
        """Replace the checkpoint by ``state``. A disk that takes none leaves the former one, and training goes on."""
        if self._path is None:
            return
        beside = self._path.with_name(f".{self._path.name}.part")
        try:
            with beside.open("wb") as sink:
                np.savez(sink, allow_pickle=False, **self._parts(state))
                sink.flush()
                os.fsync(sink.fileno())
            beside.replace(self._path)
        except OSError as error:
            beside.unlink(missing_ok=True)
            self._say(f"no checkpoint after epoch {state.epoch} ({error.strerror or error}): make room on the disk")

    def _parts(self, state: State) -> dict[str, npt.NDArray[Any]]:
        told = {
            "identity": {"format": str(_FORMAT), **self._identity},
            "epoch": state.epoch,
            "best_epoch": state.best_epoch,
            "best_loss": state.best_loss,
            "history": state.history,
            "counts": {group: len(getattr(state, group)) for group in _GROUPS},
        }
        arrays = {f"{group}_{n}": a for group in _GROUPS for n, a in enumerate(getattr(state, group))}
        return {"told": np.asarray(json.dumps(told)), **arrays}


def _state(told: Mapping[str, Any], parts: Mapping[str, npt.NDArray[Any]]) -> State:
    found: dict[str, Arrays] = {
        group: [parts[f"{group}_{n}"] for n in range(told["counts"][group])] for group in _GROUPS
    }
    return State(
        epoch=told["epoch"],
        best_epoch=told["best_epoch"],
        best_loss=told["best_loss"],
        history=told["history"],
        **found,
    )


def same_shapes(arrays: Sequence[npt.NDArray[Any]], shapes: Sequence[Sequence[int]]) -> bool:
    """Whether arrays have these shapes, one for one."""
    return [a.shape for a in arrays] == [tuple(shape) for shape in shapes]
