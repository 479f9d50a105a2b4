"""One step of full training and one look at held-out images: the input pipeline, the precision, the optimizer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from edgeloop.exports.tensorflow import load_tensorflow
from edgeloop.learning.augment import Floats, Images, augment
from edgeloop.learning.full_config import FullTraining, Labels, Precision
from edgeloop.learning.xception import Rows

Step = Callable[[Any, Any], tuple[Any, Any]]
#: GPUs from this compute capability on have units that multiply float16 much quicker than float32.
_QUICK_HALVES = (7, 0)
_STEPS_WORTH_REWRITES = 300


# --- input


def batches(
    images: Images, labels: Labels, rows: Rows, batch: int, config: FullTraining, first_epoch: int
) -> Iterator[tuple[Any, Any]]:
    """Batches of the epochs from `first_epoch` (1 is the first) on: uint8 [batch, s, s, 3] and int64 [batch] tensors.

    Order and augmentation of an epoch follow from the seed and its number alone, so that a training that was cut off
    goes on as if it had not been. Batches are made while others train. `images` may be a memory map.
    """
    tf, _ = load_tensorflow()
    steps = len(rows) // batch

    def read() -> Iterator[tuple[Images, Labels, npt.NDArray[np.int32]]]:
        for epoch in range(first_epoch, config.epochs + 1):
            order = np.random.default_rng([config.seed, epoch]).permutation(rows)
            for step, some in enumerate(order[: steps * batch].reshape(-1, batch)):
                seed = np.asarray([config.seed, epoch * steps + step], dtype=np.int32)
                yield np.asarray(images[some]), labels[some], seed

    signature = (
        tf.TensorSpec((batch, *images.shape[1:]), tf.uint8),
        tf.TensorSpec((batch,), tf.int64),
        tf.TensorSpec((2,), tf.int32),
    )

    def prepare(pictures: Any, numbers: Any, seed: Any) -> tuple[Any, Any]:
        return (augment(pictures, seed) if config.augment else pictures), numbers

    data = tf.data.Dataset.from_generator(read, output_signature=signature)
    data = data.map(prepare, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True).prefetch(2)
    yield from data


# --- precision


def choose_precision(asked: Precision, capabilities: Sequence[tuple[int, int]]) -> Literal["float32", "mixed"]:
    """What "auto" means on GPUs of these compute capabilities; without a GPU there are none."""
    if asked != "auto":
        return asked
    return "mixed" if capabilities and min(capabilities) >= _QUICK_HALVES else "float32"


def gpu_capabilities() -> list[tuple[int, int]]:
    """Compute capability of each GPU that TensorFlow sees; (0, 0) where the driver does not say."""
    tf, _ = load_tensorflow()
    details = [tf.config.experimental.get_device_details(gpu) for gpu in tf.config.list_physical_devices("GPU")]
    return [tuple(told.get("compute_capability", (0, 0))) for told in details]


def set_precision(model: Any, precision: Literal["float32", "mixed"]) -> None:
    """Make every layer of `model` compute so from its next trace on; weights are float32 either way."""
    _, keras = load_tensorflow()
    policy = keras.DTypePolicy("mixed_float16" if precision == "mixed" else "float32")
    for layer in model._flatten_layers():
        layer.dtype_policy = policy


# --- learning


def make_optimizer(rate: float, steps: int, precision: Literal["float32", "mixed"]) -> Any:
    """Adam whose rate rises over a tenth of `steps` and falls to zero; its loss is scaled where float16 needs it."""
    _, keras = load_tensorflow()
    warmup = max(1, steps // 10)
    schedule = keras.optimizers.schedules.CosineDecay(
        rate / 10, max(1, steps - warmup), warmup_target=rate, warmup_steps=warmup
    )
    adam = keras.optimizers.Adam(schedule)
    return keras.optimizers.LossScaleOptimizer(adam) if precision == "mixed" else adam


def label_weights(labels: Labels, n_classes: int, balanced: bool) -> Floats:
    """Weight of an image by its label, float32 [n_classes], of mean one over `labels`; balanced: labels weigh alike."""
    if not balanced:
        return np.ones(n_classes, np.float32)
    counts = np.bincount(labels, minlength=n_classes)
    present = max(1, int((counts > 0).sum()))
    return np.asarray(len(labels) / (present * np.maximum(counts, 1)), np.float32)


def make_step(classifier: Any, optimizer: Any, config: FullTraining, weights: Floats, learn_batches: bool) -> Step:
    """A compiled step: (images, labels) -> (loss, share of hits), which changes `classifier` and `optimizer`.

    With `learn_batches` BatchNorm normalises by the batch and keeps count; else it stays as it was trained before.
    """
    tf, keras = load_tensorflow()
    loss_of = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=config.label_smoothing)
    n_classes = classifier.output_shape[-1]

    def step(images: Any, labels: Any) -> tuple[Any, Any]:
        with tf.GradientTape() as tape:
            logits = classifier(images, training=learn_batches)
            loss = loss_of(tf.one_hot(labels, n_classes), logits, sample_weight=tf.gather(weights, labels))
            scaled = optimizer.scale_loss(loss)
        variables = classifier.trainable_variables
        optimizer.apply_gradients(zip(tape.gradient(scaled, variables), variables, strict=True))
        hits = tf.reduce_mean(tf.cast(tf.equal(tf.argmax(logits, -1), labels), tf.float32))
        return loss, hits

    optimizer.build(classifier.trainable_variables)
    compiled: Step = tf.function(step, jit_compile=False)
    return compiled


def skip_graph_rewrites(steps: int) -> None:
    """TensorFlow rewrites the graph for 15 s before the first step; a short run never earns that back."""
    tf, _ = load_tensorflow()
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": steps < _STEPS_WORTH_REWRITES})


# --- looking


def make_forward(model: Any) -> Callable[[Images, Rows, int], Floats]:
    """A compiled pass without learning: images, rows of them and a batch size -> the model's outputs, in order."""
    tf, _ = load_tensorflow()
    run = tf.function(lambda pictures: model(pictures, training=False))

    def forward(images: Images, rows: Rows, batch: int) -> Floats:
        parts = []
        for start in range(0, len(rows), batch):
            some = rows[start : start + batch]
            padded = np.concatenate([some, np.repeat(some[-1:], batch - len(some))])  # one shape keeps memory flat
            parts.append(run(tf.constant(np.asarray(images[padded]))).numpy()[: len(some)])
        return np.asarray(np.concatenate(parts), np.float32)

    return forward


def score(logits: Floats, labels: Labels, weights: Floats) -> tuple[float, float]:
    """Weighted mean cross-entropy, and the share of hits, of logits [n, classes] for int labels [n]."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    wanted = shifted[np.arange(len(labels)), labels] - np.log(np.exp(shifted).sum(axis=1))
    mass = weights[labels]
    return float(-(mass * wanted).sum() / mass.sum()), float((logits.argmax(axis=1) == labels).mean())
