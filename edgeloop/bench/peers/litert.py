"""The bare interpreter: what answering costs with no server around it.

Runs as a process of its own: ``python -m edgeloop.bench.peers.litert MODEL JPEG THREADS SECONDS``. Each thread decodes
the JPEG, resizes it to the model's square and invokes an interpreter of its own. Prints ``took`` in seconds of each
answer, and ``seconds`` in all.
"""

from __future__ import annotations

import io
import json
import sys
import threading
import time
from pathlib import Path

import numpy as np


def work(model: bytes, jpeg: bytes, seconds: float, took: list[float]) -> None:
    from ai_edge_litert.interpreter import Interpreter
    from PIL import Image

    interpreter = Interpreter(model_content=model, num_threads=1)
    interpreter.allocate_tensors()
    source, sink = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    side = int(source["shape"][1])
    until = time.perf_counter() + seconds
    while (begun := time.perf_counter()) < until:
        with Image.open(io.BytesIO(jpeg)) as image:
            image.draft("RGB", (side, side))
            pixels = np.asarray(image.convert("RGB").resize((side, side), Image.Resampling.BILINEAR))
        interpreter.set_tensor(source["index"], pixels[np.newaxis].astype(source["dtype"]))
        interpreter.invoke()
        interpreter.get_tensor(sink["index"])
        took.append(time.perf_counter() - begun)


def main(arguments: list[str]) -> None:
    model, jpeg = Path(arguments[0]).read_bytes(), Path(arguments[1]).read_bytes()
    count, seconds = int(arguments[2]), float(arguments[3])
    tallies: list[list[float]] = [[] for _ in range(count)]
    begun = time.perf_counter()
    threads = [threading.Thread(target=work, args=(model, jpeg, seconds, took)) for took in tallies]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    result = {"took": [s for took in tallies for s in took], "seconds": time.perf_counter() - begun}
    sys.stdout.write(json.dumps(result))


if __name__ == "__main__":
    main(sys.argv[1:])
