"""Full training itself: which weights learn when, when it stops, and how it goes on after it was cut off.

From random weights all of them learn at once, and BatchNorm learns what a batch looks like. From weights that were
trained before, a new head would pull at features that are good until it makes sense itself, so it is fitted first, on
frozen features (Kumar et al. 2022, arXiv:2202.10054). Then all learn at a lower rate, with BatchNorm in inference mode
as the Keras guide on transfer learning has it: statistics of few images would undo what the weights were trained for.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np

from edgeloop.exports.tensorflow import load_tensorflow
from edgeloop.learning.augment import Images
from edgeloop.learning.checkpoint import Checkpoints, State, same_shapes
from edgeloop.learning.full_config import (
    EpochProgress,
    FullTraining,
    Labels,
    Mask,
    Stopped,
    TrainedBackbone,
    TrainingDiverged,
)
from edgeloop.learning.full_steps import (
    Step,
    batches,
    choose_precision,
    gpu_capabilities,
    label_weights,
    make_forward,
    make_optimizer,
    make_step,
    score,
    set_precision,
    skip_graph_rewrites,
)
from edgeloop.learning.heads import fit_head
from edgeloop.learning.xception import recalibrate_batchnorm
from edgeloop.samples.service import Head

#: Batches that BatchNorm is recalibrated on before each look at the held-out images.
_CALIBRATION = 4


def fit_backbone(
    backbone: Any,
    images: Images,
    labels: Labels,
    n_classes: int,
    config: FullTraining,
    progress: EpochProgress | None = None,
    *,
    held_out: Mask | None = None,
    pretrained: bool = False,
    checkpoints: Checkpoints | None = None,
) -> TrainedBackbone:
    """Train every weight of `backbone` in place under a throw-away softmax head; the same seed gives the same weights.

    Args:
        backbone: keras.Model, uint8 [n, s, s, 3] -> float32 [n, d].
        images: uint8 [n, s, s, 3]; may be a memory map.
        labels: int64 [n] in 0..n_classes - 1.
        n_classes: number of labels that there are.
        config: how long and how fast.
        progress: told of every epoch, after its checkpoint.
        held_out: bool [n], images that only say when to stop; `None` trains on all to the last epoch.
        pretrained: fine-tune weights that were trained before, see above.
        checkpoints: where each epoch is kept, and the last one of a run that was cut off is found.

    Raises:
        TrainingDiverged: the loss is no number any more.
    """
    training = _Training(backbone, images, labels, n_classes, config, held_out, pretrained)
    kept = checkpoints or Checkpoints(None, {}, lambda _: None)
    former = kept.load(training.fits)
    state = training.begin() if former is None else training.go_back(former)
    feed = training.feed(state.epoch + 1)
    while (stopped := _why_stop(state, config, training.looks)) is None:
        numbers = training.epoch(feed, state)
        kept.save(state)
        if progress is not None:
            progress(state.epoch, config.epochs, numbers)
    training.finish(state)
    best = state.best_epoch if training.looks else state.epoch
    return TrainedBackbone(backbone, state.history, stopped, best, training.precision)


def _why_stop(state: State, config: FullTraining, looks: bool) -> Stopped | None:
    if not state.history:
        return None
    last, spent = state.history[-1], sum(numbers["seconds"] for numbers in state.history)
    if config.stop_at_accuracy is not None and last["accuracy"] >= config.stop_at_accuracy:
        return "accuracy"
    if state.epoch >= config.epochs:
        return "epochs"
    if looks and state.waited >= config.patience:
        return "patience"
    return "budget" if config.budget_s is not None and spent + last["seconds"] > config.budget_s else None


class _Training:
    """What stays the same from epoch to epoch."""

    def __init__(
        self,
        backbone: Any,
        images: Images,
        labels: Labels,
        n_classes: int,
        config: FullTraining,
        held_out: Mask | None,
        pretrained: bool,
    ) -> None:
        _, keras = load_tensorflow()
        aside = np.zeros(len(images), dtype=np.bool_) if held_out is None else held_out
        self._backbone, self._images, self._labels, self._config = backbone, images, labels, config
        self._learned, self._watched = np.flatnonzero(~aside), np.flatnonzero(aside)
        self._batch = min(config.batch_size, len(self._learned))
        self._steps = len(self._learned) // self._batch
        self._pretrained = pretrained
        self.precision = choose_precision(config.precision, gpu_capabilities())
        set_precision(backbone, self.precision)
        head = keras.layers.Dense(n_classes, name="throwaway", dtype="float32")
        self._classifier = keras.Sequential([backbone, head])
        self._weights = label_weights(labels[self._learned], n_classes, config.balanced)
        steps = config.epochs * self._steps
        skip_graph_rewrites(steps)
        rate = config.fine_tuning_rate if pretrained else config.learning_rate
        self._optimizer = make_optimizer(rate, steps, self.precision)
        self._step: Step = make_step(self._classifier, self._optimizer, config, self._weights, not pretrained)
        self._forward = make_forward(self._classifier)

    @property
    def looks(self) -> bool:
        """Whether some images say when to stop."""
        return len(self._watched) > 0

    def feed(self, first_epoch: int) -> Iterator[tuple[Any, Any]]:
        """Batches from an epoch on, to the last one."""
        return batches(self._images, self._labels, self._learned, self._batch, self._config, first_epoch)

    def begin(self) -> State:
        """The state before the first epoch; fits the head to weights that were trained before."""
        if self._pretrained:
            self._fit_head()
        return State()

    def _fit_head(self) -> None:
        features = make_forward(self._backbone)(self._images, self._learned, self._batch)
        names = [str(number) for number in range(self._classifier.output_shape[-1])]
        truth = [names[number] for number in self._labels[self._learned]]
        head = fit_head(features, truth, names, Head(), self._config.seed, balanced=self._config.balanced)
        self._classifier.layers[-1].set_weights([head.weights, head.bias])

    def fits(self, state: State) -> bool:
        """Whether ``state`` is of this model and optimizer."""
        model, slots = self._classifier.weights, self._optimizer.variables
        return same_shapes(state.weights, [w.shape for w in model]) and same_shapes(
            state.optimizer, [v.shape for v in slots]
        )

    def go_back(self, state: State) -> State:
        """Make model and optimizer what they were at ``state``, which fits."""
        self._classifier.set_weights(state.weights)
        for variable, value in zip(self._optimizer.variables, state.optimizer, strict=True):
            variable.assign(value)
        return state

    def epoch(self, feed: Iterator[tuple[Any, Any]], state: State) -> dict[str, float]:
        """Learn from all images once and bring ``state`` up to date; returns the epoch's numbers."""
        started = time.monotonic()
        told = [self._step(*pair) for pair in islice(feed, self._steps)]
        losses, hits = np.asarray([[float(loss), float(hit)] for loss, hit in told]).mean(axis=0)
        numbers = {"loss": float(losses), "accuracy": float(hits)}
        state.epoch += 1
        if not np.isfinite(losses):
            raise TrainingDiverged(
                f"the loss of epoch {state.epoch} is {losses}: lower the learning rate, or use precision float32"
            )
        if self.looks:
            numbers["val_loss"], numbers["val_accuracy"] = self._look()
        numbers["seconds"] = time.monotonic() - started
        self._note(state, numbers)
        return numbers

    def _look(self) -> tuple[float, float]:
        if not self._pretrained:
            rng = np.random.default_rng(self._config.seed)
            some = rng.permutation(self._learned)[: _CALIBRATION * self._batch]
            recalibrate_batchnorm(self._backbone, self._images, self._batch, some)
        logits = self._forward(self._images, self._watched, self._batch)
        return score(logits, self._labels[self._watched], self._weights)

    def _note(self, state: State, numbers: dict[str, float]) -> None:
        state.history.append(numbers)
        state.weights = self._classifier.get_weights()
        state.optimizer = [v.numpy() for v in self._optimizer.variables]
        if self.looks and (not state.best or numbers["val_loss"] < state.best_loss):
            state.best, state.best_epoch, state.best_loss = state.weights, state.epoch, numbers["val_loss"]

    def finish(self, state: State) -> None:
        """Leave the best weights in the backbone, in float32, with BatchNorm's statistics of all that was learned."""
        if state.best:
            self._classifier.set_weights(state.best)
        set_precision(self._backbone, "float32")
        if not self._pretrained:
            recalibrate_batchnorm(self._backbone, self._images, self._batch, self._learned)
