"""Image models: a LiteRT backbone that turns an image into features, and a head on top of them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeloop.clients.lending import Lender, usable_cores
from edgeloop.clients.model_heads import Head
from edgeloop.clients.model_types import Answer, UnloadableModel
from edgeloop.errors import BadInput
from edgeloop.samples.payloads import decode_image

if TYPE_CHECKING:
    from numpy.typing import NDArray


class UnknownBackbone(BadInput):
    """A LiteRT file that cannot serve as a backbone."""


class _Interpreter:
    """One LiteRT interpreter of one thread's width; used by one thread at a time."""

    def __init__(self, content: bytes, name: str) -> None:
        try:
            from ai_edge_litert.interpreter import Interpreter

            self._runs: Any = Interpreter(model_content=content, num_threads=1)
            self._runs.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            why = " ".join(str(error).split())[:200]
            raise UnloadableModel(f"backbone {name} does not load ({why}): export it again") from error
        source, sink = self._runs.get_input_details()[0], self._runs.get_output_details()[0]
        self.takes = tuple(int(n) for n in source["shape"])
        self.gives = int(np.prod(sink["shape"]))
        self.dtype = np.dtype(source["dtype"])
        self._source: int = source["index"]
        self._sink: int = sink["index"]
        self._scale, self._zero = sink["quantization"]

    def run(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Features of one image [side, side, 3]: float32 [features], a copy."""
        # Writing into the tensor saves two copies; a view that outlives this line would forbid the next invoke.
        np.copyto(self._runs.tensor(self._source)()[0], _as_input(image, self.dtype), casting="unsafe")
        self._runs.invoke()
        raw = self._runs.get_tensor(self._sink).reshape(-1)
        values = (raw.astype(np.float32) - self._zero) * self._scale if self._scale else raw
        return np.asarray(values, dtype=np.float32)


def _as_input(image: NDArray[np.uint8], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Pixels as the input tensor takes them: 0 to 255, and for int8 the same shifted by the zero point of -128."""
    return (image ^ np.uint8(0x80)).view(np.int8) if dtype == np.int8 else image


class Backbone:
    """A LiteRT feature extractor: an image in, one feature vector out.

    Its interpreters are made and run once when it is made, so that no request pays for it: one per core, or as many as
    ``interpreters`` says. They read the same model bytes; each holds its own tensors and packed weights.
    """

    def __init__(self, content: bytes, name: str, interpreters: int | None = None) -> None:
        self.digest = name
        began = time.perf_counter()
        first = _Interpreter(content, name)
        self._making_seconds = time.perf_counter() - began
        side = first.takes[1] if len(first.takes) == 4 else 0
        if first.takes != (1, side, side, 3) or first.dtype not in (np.uint8, np.int8, np.float32):
            raise UnknownBackbone(
                f"backbone takes {first.dtype} input of shape {list(first.takes)}, "
                f"not uint8, int8 or float32 of [1, side, side, 3]: choose another file"
            )
        self.size = side
        self.length = first.gives
        more = [self._another(content) for _ in range((interpreters or usable_cores()) - 1)]
        self._interpreters = Lender([first, *more])
        self._warm([first, *more])

    def _another(self, content: bytes) -> _Interpreter:
        """One more, after a pause as long as the first took: LiteRT holds the interpreter lock of Python while it makes
        one, and requests to the model that still serves must get their turn in between."""
        time.sleep(self._making_seconds)
        return _Interpreter(content, self.digest)

    def _warm(self, interpreters: Sequence[_Interpreter]) -> None:
        blank = np.zeros((self.size, self.size, 3), np.uint8)
        try:
            for one in interpreters:
                one.run(blank)
        except (ValueError, RuntimeError) as error:
            why = " ".join(str(error).split())[:200]
            raise UnloadableModel(f"backbone {self.digest} does not run ({why}): export it again") from error

    def features(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Features of one uint8 image [side, side, 3] with values 0 to 255; float32 of shape [features].

        Waits while every interpreter is in use.
        """
        with self._interpreters.lend() as interpreter:
            return interpreter.run(image)


class ImageModel:
    """A LiteRT backbone and a head."""

    def __init__(self, backbone: Backbone, head: Head) -> None:
        self._backbone = backbone
        self._head = head
        self.labels: tuple[str, ...] | None = head.labels
        self.backbone_digest: str | None = backbone.digest

    def predict(self, payload: bytes) -> Answer:
        """Decode, extract features, answer. The head sees the float16 features that travel with a sample."""
        image = decode_image(payload, self._backbone.size)
        features = self._backbone.features(image).astype(np.float16)
        row: list[float] = self._head.probabilities(features[np.newaxis].astype(np.float32))[0].tolist()
        best = max(range(len(row)), key=row.__getitem__)
        return Answer(self._head.labels[best], row[best], tuple(row), features, image)


def read_backbone(path: Path) -> Backbone:
    """Load a LiteRT extractor from a file.

    Raises:
        UnknownBackbone: there is no such file, or it is no image feature extractor.
    """
    from edgeloop.samples.records import digest

    if not path.is_file():
        raise UnknownBackbone(f"backbone file {path} does not exist: name a .tflite file")
    content = path.read_bytes()
    return Backbone(content, digest(content))
