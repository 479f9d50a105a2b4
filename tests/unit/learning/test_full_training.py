"""Full training on a backbone that learns in a second: what learns when, when it stops, and going on."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeloop.learning import full_steps, full_training
from edgeloop.learning.augment import augment
from edgeloop.learning.checkpoint import Checkpoints
from edgeloop.learning.full_config import FullTraining, TrainedBackbone, TrainingDiverged
from edgeloop.learning.full_steps import batches, choose_precision, label_weights, make_forward, score
from edgeloop.learning.full_training import fit_backbone
from edgeloop.learning.xception import weights_digest
from tests.unit.learning.tiny import N_CLASSES, bars, last, small_backbone

pytest.importorskip("tensorflow")
pytestmark = [pytest.mark.timeout(480)]


def quick(**changes: Any) -> FullTraining:
    return FullTraining(**({"epochs": 3, "batch_size": 8, "seed": 3} | changes))


def fit(config: FullTraining, aside: int = 0, seed: int = 3, **more: Any) -> TrainedBackbone:
    held_out = last(24 + aside, aside) if aside else None
    return fit_backbone(small_backbone(seed), *bars(24 + aside), N_CLASSES, config, held_out=held_out, **more)


def batch_norm(model: Any) -> Any:
    return next(layer for layer in model.layers if type(layer).__name__ == "BatchNormalization")


# --- input


def test_augmentation_follows_from_the_seed_and_keeps_the_shape() -> None:
    images, _ = bars(6)
    once = augment(images, [5, 1]).numpy()
    assert once.shape == images.shape and once.dtype == np.uint8
    assert np.array_equal(once, augment(images, [5, 1]).numpy())
    assert not np.array_equal(once, augment(images, [5, 2]).numpy())
    assert not np.array_equal(once[0], once[2]), "each image is changed in its own way"
    lying, standing = augment(*[np.stack([images[0], images[1]]), [1, 1]]).numpy().astype(float).mean(axis=3)
    assert lying.mean(axis=1).std() > lying.mean(axis=0).std(), "a lying bar still lies"
    assert standing.mean(axis=0).std() > standing.mean(axis=1).std()


def test_an_epoch_is_the_same_whoever_begins_with_it() -> None:
    images, labels = bars(20)
    rows, config = np.arange(20), quick()
    whole = [(p.numpy(), n.numpy()) for p, n in batches(images, labels, rows, 8, config, 1)]
    later = [(p.numpy(), n.numpy()) for p, n in batches(images, labels, rows, 8, config, 3)]
    assert len(whole) == 6, "three epochs of two whole batches"
    for (pictures, numbers), (same, alike) in zip(whole[4:], later, strict=True):
        assert np.array_equal(pictures, same) and np.array_equal(numbers, alike)
    assert not np.array_equal(whole[0][0], whole[2][0]), "each epoch has an order of its own"


def test_only_the_rows_that_are_asked_for_are_fed() -> None:
    images, labels = bars(20)
    marked = images.copy()
    marked[:, 0, 0, 0] = np.arange(20)
    rows = np.asarray([1, 3, 5, 7, 9, 11])
    fed = [p.numpy()[:, 0, 0, 0] for p, _ in islice(batches(marked, labels, rows, 3, quick(augment=False), 1), 4)]
    assert {int(v) for v in np.concatenate(fed)} == set(rows.tolist())


# --- weights of labels, precision


def test_balanced_labels_weigh_alike() -> None:
    labels = np.asarray([0] * 9 + [1] * 1 + [3] * 2)
    weights = label_weights(labels, 4, balanced=True)
    totals = [weights[n] * (labels == n).sum() for n in (0, 1, 3)]
    assert totals == pytest.approx([4, 4, 4])
    assert weights[labels].mean() == pytest.approx(1)
    assert label_weights(labels, 4, balanced=False).tolist() == [1, 1, 1, 1]


def test_the_rare_label_is_learned_when_labels_are_balanced() -> None:
    images, labels = bars(80)
    rare = np.flatnonzero((labels == 0) | (np.arange(80) % 20 == 1))  # ten lying bars to each standing one
    config = quick(epochs=2, augment=False, learning_rate=0.01)
    recalls = {}
    for balanced in (False, True):
        seen: list[Any] = []
        backbone = small_backbone()
        step = full_steps.make_step

        def spy(classifier: Any, *rest: Any, seen: list[Any] = seen, step: Any = step) -> Any:
            seen.append(classifier)
            return step(classifier, *rest)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(full_training, "make_step", spy)
            fit_backbone(backbone, images[rare], labels[rare], 2, config.model_copy(update={"balanced": balanced}))
        logits = make_forward(seen[0])(images, np.flatnonzero(labels == 1), 8)
        recalls[balanced] = float((logits[:, 1] - logits[:, 0]).mean())
    assert recalls[True] > recalls[False] + 0.1


def test_the_score_is_the_weighted_cross_entropy() -> None:
    logits = np.log(np.asarray([[0.8, 0.2], [0.5, 0.5], [0.1, 0.9]], np.float32))
    loss, accuracy = score(logits, np.asarray([0, 1, 0]), np.asarray([1, 3], np.float32))
    assert loss == pytest.approx(-(np.log(0.8) + 3 * np.log(0.5) + np.log(0.1)) / 5)
    assert accuracy == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("asked", "gpus", "wanted"),
    [
        ("auto", [], "float32"),
        ("auto", [(6, 1)], "float32"),
        ("auto", [(7, 0)], "mixed"),
        ("auto", [(9, 0), (6, 1)], "float32"),
        ("mixed", [], "mixed"),
        ("float32", [(9, 0)], "float32"),
    ],
)
def test_precision_is_what_the_slowest_gpu_is_quick_at(asked: Any, gpus: list[tuple[int, int]], wanted: str) -> None:
    assert choose_precision(asked, gpus) == wanted


def test_mixed_precision_scales_its_loss_and_leaves_a_float32_backbone(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, str]] = []
    make = full_steps.make_step

    def spy(classifier: Any, optimizer: Any, *rest: Any) -> Any:
        seen.append((type(optimizer).__name__, batch_norm(classifier.layers[0]).compute_dtype))
        return make(classifier, optimizer, *rest)

    monkeypatch.setattr(full_training, "make_step", spy)
    made = fit(quick(precision="mixed"), aside=8)
    assert seen == [("LossScaleOptimizer", "float16")]
    assert made.precision == "mixed"
    assert all(np.isfinite(epoch["loss"]) for epoch in made.history)
    assert {w.dtype for w in made.model.get_weights()} == {np.dtype(np.float32)}
    assert made.model(bars(2)[0], training=False).dtype == np.float32
    assert {layer.compute_dtype for layer in made.model.layers} == {"float32"}
    plain = fit(quick(), aside=8)
    assert made.history[-1]["loss"] == pytest.approx(plain.history[-1]["loss"], rel=0.05)


# --- stopping


def test_the_best_epoch_is_kept_when_later_ones_are_worse(monkeypatch: pytest.MonkeyPatch) -> None:
    losses = iter([0.9, 0.5, 0.7, 0.6, 0.1])
    weights: list[str] = []

    def look(training: Any) -> tuple[float, float]:
        weights.append(weights_digest(training._backbone))
        return next(losses), 0.5

    monkeypatch.setattr(full_training._Training, "_look", look)
    made = fit(quick(epochs=5, patience=2), aside=8, pretrained=True)
    assert (made.stopped, made.best_epoch, len(made.history)) == ("patience", 2, 4)
    assert weights_digest(made.model) == weights[1] != weights[3]


@pytest.mark.parametrize("pretrained", [False, True])
def test_held_out_images_change_nothing_but_the_end(pretrained: bool) -> None:
    images, labels = bars(32)
    other = images.copy()
    other[24:] = 255 - other[24:]
    histories = [
        fit_backbone(small_backbone(), some, labels, 2, quick(), held_out=last(32, 8), pretrained=pretrained).history
        for some in (images, other)
    ]
    lessons = [[(epoch["loss"], epoch["accuracy"]) for epoch in history] for history in histories]
    assert lessons[0] == lessons[1]
    assert histories[0][0]["val_loss"] != histories[1][0]["val_loss"]


def test_without_held_out_images_every_epoch_runs() -> None:
    made = fit(quick(patience=1))
    assert (made.stopped, made.best_epoch, len(made.history)) == ("epochs", 3, 3)
    assert "val_loss" not in made.history[0]


def test_a_loss_that_is_no_number_ends_the_training() -> None:
    backbone = small_backbone()
    backbone.set_weights([w * np.nan for w in backbone.get_weights()])
    with pytest.raises(TrainingDiverged, match="lower the learning rate"):
        fit_backbone(backbone, *bars(16), N_CLASSES, quick())


# --- fine-tuning


def test_fine_tuning_leaves_the_statistics_and_learns_all_else() -> None:
    base = fit(quick(epochs=2)).model
    before = [w.copy() for w in base.get_weights()]
    fit_backbone(base, *bars(24), N_CLASSES, quick(epochs=1), pretrained=True)
    moving = [id(v) for v in (batch_norm(base).moving_mean, batch_norm(base).moving_variance)]
    for variable, old, new in zip(base.weights, before, base.get_weights(), strict=True):
        assert np.array_equal(old, new) is (id(variable) in moving), variable.path


def test_fine_tuning_fits_the_head_first(monkeypatch: pytest.MonkeyPatch) -> None:
    config = quick(epochs=1, augment=False, fine_tuning_rate=1e-6)
    first = fit(config, pretrained=True).history[0]
    monkeypatch.setattr(full_training._Training, "_fit_head", lambda _: None)
    without = fit(config, pretrained=True).history[0]
    assert first["loss"] < without["loss"] - 0.05
    assert first["accuracy"] > without["accuracy"]


def test_fine_tuning_has_a_rate_of_its_own() -> None:
    start = small_backbone().get_weights()
    moved = []
    for rate in (1e-5, 1e-2):
        config = quick(epochs=1, fine_tuning_rate=rate, learning_rate=0.5)
        made = fit_backbone(small_backbone(), *bars(24), N_CLASSES, config, pretrained=True).model
        moved.append(max(float(np.abs(a - b).max()) for a, b in zip(made.get_weights(), start, strict=True)))
    assert moved[0] < 1e-3 < moved[1]


# --- going on


class Cut(Exception):
    """The power is gone."""


@pytest.mark.parametrize("pretrained", [False, True])
@pytest.mark.parametrize("precision", ["float32", "mixed"])
def test_a_training_that_was_cut_off_ends_with_the_same_weights(
    tmp_path: Path, pretrained: bool, precision: str
) -> None:
    config = quick(epochs=4, precision=precision, learning_rate=0.01)
    whole = fit(config, aside=8, pretrained=pretrained)
    told: list[int] = []
    lines: list[str] = []

    def cut(epoch: int, of: int, numbers: dict[str, float]) -> None:
        told.append(epoch)
        if epoch == 2 and len(told) == 2:
            raise Cut

    kept = Checkpoints(tmp_path / "checkpoint.npz", {"job": "this"}, lines.append)
    with pytest.raises(Cut):
        fit(config, aside=8, pretrained=pretrained, checkpoints=kept, progress=cut)
    made = fit(config, aside=8, seed=99, pretrained=pretrained, checkpoints=kept, progress=cut)
    assert told == [1, 2, 3, 4]
    assert lines == ["going on after epoch 2, from its checkpoint"]
    assert weights_digest(made.model) == weights_digest(whole.model)
    assert made.best_epoch == whole.best_epoch
    assert [h["loss"] for h in made.history] == [h["loss"] for h in whole.history]


def test_a_checkpoint_of_another_model_is_left(tmp_path: Path) -> None:
    lines: list[str] = []
    kept = Checkpoints(tmp_path / "checkpoint.npz", {"job": "this"}, lines.append)
    fit(quick(), checkpoints=kept)
    whole = fit_backbone(small_backbone(), *bars(24), 5, quick(), checkpoints=kept)
    assert len(whole.history) == 3
    assert any("training starts over" in line for line in lines)
