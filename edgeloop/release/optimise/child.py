"""The process that converts: TensorFlow never gives its memory back, and its converter may take the process with it.

``python -m edgeloop.release.optimise.child FOLDER``. The parent leaves ``job.json`` (see
:class:`~edgeloop.release.optimise.convert.Job`), ``backbone.keras`` and, where asked for, ``images.npy``, ``head`` and
``inputs/``; the child leaves ``variant.tflite``, or ``saved_model/`` with ``answers.npy`` and ``seconds.npy``. It ends
by itself when its time is over or its memory is, even where nobody waits for it any more; with
:data:`~edgeloop.release.optimise.convert.STARVED` where it knows that it was its memory.
"""

from __future__ import annotations

import errno
import mmap
import resource
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from edgeloop.clients.model_heads import read_head
from edgeloop.errors import EdgeloopError
from edgeloop.exports.tensorflow import load_tensorflow
from edgeloop.release.optimise.convert import STARVED, Job


def main(folder: Path) -> None:
    """Do the job in ``folder``."""
    job = Job.model_validate_json((folder / "job.json").read_bytes())
    signal.alarm(job.seconds)
    load_tensorflow()  # before the bound: an import that lacks memory says that a module is missing, or hangs
    with bounded(job.memory_mb << 20):
        if job.form == "savedmodel":
            _savedmodel(folder)
        else:
            _litert(folder, job)


@contextmanager
def bounded(size: int) -> Iterator[None]:
    """No more than ``size`` bytes to write to within; raises OSError (ENOMEM) where the process holds them already.

    The bound is lifted before an error leaves: Python needs memory to say what went wrong.
    """
    before, most = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (size if most == resource.RLIM_INFINITY else min(size, most), most))
    try:
        mmap.mmap(-1, mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS).close()
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (before, most))


def starved(error: BaseException | None) -> bool:
    """Whether ``error``, or what it came from, is a want of memory."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        by_tensorflow = type(error).__name__ == "ResourceExhaustedError"  # which is not imported just to ask
        if by_tensorflow or isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
            return True
        error = error.__cause__ or error.__context__
    return False


def _litert(folder: Path, job: Job) -> None:
    from edgeloop.exports.litert import export_litert

    assert job.form != "savedmodel"
    images = np.load(folder / "images.npy") if job.form == "int8" else None
    export_litert(_backbone(folder), folder / "variant.tflite", job.form, images)


def _savedmodel(folder: Path) -> None:
    """Write it, load it as a server does, and let it answer one input after the other."""
    from edgeloop.exports.savedmodel import INPUT, OUTPUT, SIGNATURE, export_savedmodel

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
    _, keras = load_tensorflow()
    return keras.models.load_model(folder / "backbone.keras", compile=False)


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]))
    except Exception as error:
        said = str(error) if isinstance(error, EdgeloopError) else traceback.format_exc()
        sys.stderr.write(f"\n{said}\n")
        sys.exit(STARVED if starved(error) else 1)
