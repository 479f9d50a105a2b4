"""The process that converts: TensorFlow never gives its memory back, and its converter may take the process with it.

``python -m edgeloop.release.optimise.child FOLDER``. The parent leaves ``job.json`` (see
:class:`~edgeloop.release.optimise.convert.Job`), ``backbone.keras`` and, where asked for, ``images.npy``, ``head`` and
``inputs/``; the child leaves ``variant.tflite``, or ``saved_model/`` with ``answers.npy`` and ``seconds.npy``. It ends
by itself when its time is over or its memory is, even where nobody waits for it any more.
"""

from __future__ import annotations

import mmap
import resource
import signal
import sys
import time
from pathlib import Path

import numpy as np

from edgeloop.clients.model_heads import read_head
from edgeloop.errors import EdgeloopError
from edgeloop.release.optimise.convert import Job


def main(folder: Path) -> None:
    """Do the job in ``folder``."""
    job = Job.model_validate_json((folder / "job.json").read_bytes())
    signal.alarm(job.seconds)
    _bound(job.memory_mb << 20)
    if job.form == "savedmodel":
        _savedmodel(folder)
    else:
        _litert(folder, job)


def _bound(size: int) -> None:
    """No more than ``size`` bytes to write to; raises OSError (ENOMEM) if TensorFlow alone holds them already."""
    from edgeloop.exports.tensorflow import load_tensorflow

    load_tensorflow()  # first: an import that lacks memory says that a module is missing, or hangs
    resource.setrlimit(resource.RLIMIT_DATA, (size, size))
    mmap.mmap(-1, mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS).close()


def _litert(folder: Path, job: Job) -> None:
    from edgeloop.exports.litert import export_litert

    assert job.form != "savedmodel"
    images = np.load(folder / "images.npy") if job.form == "int8" else None
    export_litert(_backbone(folder), folder / "variant.tflite", job.form, images)


def _savedmodel(folder: Path) -> None:
    """Write it, load it as a server does, and let it answer one input after the other."""
    from edgeloop.exports.savedmodel import INPUT, OUTPUT, SIGNATURE, export_savedmodel
    from edgeloop.exports.tensorflow import load_tensorflow

    tf, _ = load_tensorflow()
    export_savedmodel(_backbone(folder), read_head((folder / "head").read_bytes()), folder / "saved_model")
    served = tf.saved_model.load(str(folder / "saved_model"))
    answer = served.signatures[SIGNATURE]
    inputs = [tf.constant([path.read_bytes()]) for path in sorted((folder / "inputs").iterdir())]
    answers, seconds = [], []
    for one in [*inputs[:1], *inputs]:  # the first answer pays for what the others find ready
        began = time.perf_counter()
        answers.append(answer(**{INPUT: one})[OUTPUT].numpy()[0])
        seconds.append(time.perf_counter() - began)
    np.save(folder / "answers.npy", np.asarray(answers[1:], np.float32))
    np.save(folder / "seconds.npy", np.asarray(seconds[1:]))


def _backbone(folder: Path) -> object:
    from edgeloop.exports.tensorflow import load_tensorflow

    _, keras = load_tensorflow()
    return keras.models.load_model(folder / "backbone.keras", compile=False)


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]))
    except EdgeloopError as error:
        sys.exit(str(error))
