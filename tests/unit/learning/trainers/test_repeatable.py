"""The same data and seed give the same layers, in another process, with other hashes and other threads."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[4]
CODE = """
import sys
from pathlib import Path
import numpy as np
from edgeloop.learning.trainers.kinds import KINDS
from edgeloop.learning.threads import one_thread
from edgeloop.samples.records import digest
from edgeloop.samples.service import Head
from tests.unit.learning.loop import Loop, rater

rng = np.random.default_rng(0)
labels = ["a", "b", "c"]
truth = [labels[i] for i in rng.integers(0, 3, 700)]
centres = {label: rng.normal(0, 0.1, 600) for label in labels}
features = np.stack([centres[t] for t in truth]).astype("f4") + rng.normal(0, 1, (700, 600)).astype("f4")
for kind, make in KINDS.items():
    with one_thread():
        head = make(Head(units=300), True).fit(features, truth, labels, rng.uniform(1, 2, 700), 3)
    print(kind, digest(head.to_bytes()))
for number, trainer in enumerate(({}, {"importance": True})):
    folder = Path(sys.argv[1], str(number))
    folder.mkdir(parents=True)
    loop = Loop(folder, rater(trainer=trainer))
    loop.collect(range(80))
    print(sorted(loop.train(loop.plan()).layers.items()))
"""


def made(folder: Path, hash_seed: str, threads: str) -> str:
    chosen = {"PYTHONHASHSEED": hash_seed, "OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads}
    command = [sys.executable, "-c", CODE, str(folder)]
    done = subprocess.run(
        command, env=os.environ | chosen, cwd=ROOT, capture_output=True, text=True, check=False, timeout=240
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_every_kind_is_made_of_the_same_bytes(tmp_path: Path) -> None:
    first, second = made(tmp_path / "a", "1", "1"), made(tmp_path / "b", "2", "2")
    assert len(first.splitlines()) == 7
    assert first.splitlines() == second.splitlines()
