"""Callbacks of a training stage."""

import itertools
import json
import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from caption_gan.distribution import replicas
from caption_gan.text.embeddings import WordEmbedding
from caption_gan.training.callbacks import (
    CaptionMetrics,
    History,
    Progress,
    SampleCaptions,
    SaveBest,
    StepCurves,
    StepTime,
    StopOnNonFinite,
    Unfreeze,
)

WORDS = np.array([[0, 1], [2, 3], [1, 2], [3, 0]], np.int32)
TARGETS = np.array([[0.0], [1.0], [0.5], [2.0]], np.float32)


@pytest.fixture
def model() -> keras.Model:
    """Returns a model of two words; its optimizer was built while all layers were trainable."""
    keras.utils.set_random_seed(0)
    layers = [WordEmbedding(4, 3, name="embedding"), keras.layers.Flatten(), keras.layers.Dense(1)]
    model = keras.Sequential([keras.layers.Input((2,), dtype="int32"), *layers])
    model.compile(optimizer=keras.optimizers.Adam(0.1), loss="mse")
    model.optimizer.build(model.trainable_variables)
    return model


def fit(model: keras.Model, epochs: int, *callbacks: keras.callbacks.Callback, **settings) -> None:
    settings = {"batch_size": 2, "verbose": 0, **settings}
    model.fit(WORDS, TARGETS, epochs=epochs, callbacks=list(callbacks), **settings)


def changes_by_epoch(
    model: keras.Model, policy: keras.callbacks.Callback, epochs: int, **settings
) -> list[bool]:
    """Returns for each epoch whether the word vectors changed."""
    vectors = [np.array(model.get_layer("embedding").embeddings)]
    watch = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: vectors.append(
            np.array(model.get_layer("embedding").embeddings)
        )
    )
    fit(model, epochs, policy, watch, **settings)
    return [not np.array_equal(before, after) for before, after in itertools.pairwise(vectors)]


def test_word_vectors_are_trained_after_the_given_epochs(model):
    policy = Unfreeze(model.get_layer("embedding"), 2)
    assert changes_by_epoch(model, policy, 4) == [False, False, True, True]


def test_word_vectors_are_trained_at_once_or_never(model):
    embedding = model.get_layer("embedding")
    assert changes_by_epoch(model, Unfreeze(embedding, 0), 1) == [True]
    assert changes_by_epoch(model, Unfreeze(embedding, 10**9), 2) == [False, False]


def test_word_vectors_of_a_continued_run(model):
    policy = Unfreeze(model.get_layer("embedding"), 2)
    assert changes_by_epoch(model, policy, 4, initial_epoch=1) == [False, True, True]


class OnlyTheAttribute(Unfreeze):
    """Faulty: the compiled step continues to train the same variables."""

    def on_epoch_begin(self, epoch, logs=None):
        self.layer.trainable = epoch >= self.epochs


def test_setting_the_attribute_alone_unfreezes_nothing(model):
    policy = OnlyTheAttribute(model.get_layer("embedding"), 1)
    assert changes_by_epoch(model, policy, 3) == [False, False, False]


def test_step_curves_are_means_over_steps():
    loss, score = (keras.metrics.Mean(name=name) for name in ("loss", "score"))
    points: list[dict[str, float]] = []
    written: list[int] = []
    curves = StepCurves(points, [loss, score], 2, lambda: written.append(len(points)))
    curves.set_params({"steps": 5})
    for epoch in range(2):
        loss.reset_state()
        score.reset_state()
        curves.on_epoch_begin(epoch)
        for batch, value in enumerate([1.0, 3.0, 5.0, 9.0, 4.0]):
            loss.update_state(value + 10 * epoch)
            if batch >= 3:  # As a generator while its critic warms up.
                score.update_state(0.25)
            curves.on_train_batch_end(batch)
    assert points == [
        {"epoch": 0.4, "loss": 2},
        {"epoch": 0.8, "loss": 7, "score": 0.25},
        {"epoch": 1.0, "loss": 4, "score": 0.25},
        {"epoch": 1.4, "loss": 12},
        {"epoch": 1.8, "loss": 17, "score": 0.25},
        {"epoch": 2.0, "loss": 14, "score": 0.25},
    ]
    assert written == [1, 2, 3, 4, 5, 6]


def test_step_curves_of_a_strategy():
    with tf.distribute.MirroredStrategy(["cpu:0"]).scope():
        loss = replicas.Mean(name="loss")
    with pytest.raises(TypeError):
        float(loss.total)  # A variable of a strategy has none.
    points: list[dict[str, float]] = []
    curves = StepCurves(points, [loss], 1, lambda: None)
    curves.set_params({"steps": 1})
    curves.on_epoch_begin(0)
    loss.update_state(2.0)
    curves.on_train_batch_end(0)
    assert points == [{"epoch": 1.0, "loss": 2.0}]


def test_save_best_saves_epochs_that_equal_or_exceed_the_best():
    saved: list[int] = []
    epoch = 0
    keep = SaveBest(lambda: saved.append(epoch), monitor="val_CIDEr")
    for epoch, score in enumerate([0.1, 0.3, 0.2, math.nan, 0.3, 0.4]):
        keep.on_epoch_end(epoch, {"val_CIDEr": score, "loss": 1.0})
    assert saved == [0, 1, 4, 5]
    assert keep.best == 0.4


def test_save_best_includes_epochs_of_an_interrupted_run():
    saved: list[bool] = []
    past = [{"val_CIDEr": 0.5}, {"val_CIDEr": 0.4, "val_healthy": 1}]
    keep = SaveBest(lambda: saved.append(True), "val_CIDEr", past)
    keep.on_epoch_end(3, {"val_CIDEr": 0.49})
    assert not saved
    keep.on_epoch_end(4, {"val_CIDEr": 0.5})
    assert saved == [True]


def test_save_best_skips_epochs_with_signs_of_collapse():
    saved: list[float] = []
    past = [{"val_CIDEr": 0.9, "val_healthy": 0.0}, {"val_CIDEr": 0.2, "val_healthy": 1.0}]
    keep = SaveBest(lambda: saved.append(keep.best), "val_CIDEr", past)
    keep.on_epoch_end(2, {"val_CIDEr": 0.8, "val_healthy": 0.0})
    keep.on_epoch_end(3, {"val_CIDEr": 0.3, "val_healthy": 1.0})
    assert saved == [0.3]


def test_history_appends_json_numbers():
    epochs = [{"epoch": 1, "seconds": 2.0, "loss": 3.0}]
    written: list[str] = []
    history = History(epochs, lambda: written.append(json.dumps(epochs)))
    history.on_epoch_begin(1)
    history.on_epoch_end(1, {"loss": np.float32(0.5), "val_CIDEr": tf.constant(0.25)})
    assert epochs[0] == {"epoch": 1, "seconds": 2.0, "loss": 3.0}
    seconds = epochs[1].pop("seconds")
    assert 0 <= seconds < 5
    assert epochs[1] == {"epoch": 2, "loss": 0.5, "val_CIDEr": 0.25}
    assert [len(json.loads(text)) for text in written] == [2]


def test_metrics_reach_later_callbacks(model):
    scores = iter([0.2, 0.1])
    epochs: list[dict[str, float]] = []
    saved: list[int] = []
    fit(
        model,
        2,
        CaptionMetrics(lambda: {"CIDEr": next(scores), "repeated_token_rate": 0.0}),
        History(epochs, lambda: None),
        SaveBest(lambda: saved.append(len(epochs)), "val_CIDEr"),
    )
    assert [metrics["val_CIDEr"] for metrics in epochs] == [0.2, 0.1]
    assert [metrics["epoch"] for metrics in epochs] == [1, 2]
    assert all({"loss", "seconds", "val_repeated_token_rate"} <= set(metrics) for metrics in epochs)
    assert saved == [1]


@pytest.mark.parametrize("name", ["loss", "critic_gradient_norm"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_non_finite_metric_is_reported_with_its_step(name, value):
    reasons: list[str] = []
    stop = StopOnNonFinite(reasons.append)
    stop.on_epoch_begin(2)
    stop.on_train_batch_end(6, {"loss": 1e30, "critic_gradient_norm": 0.0})
    assert not reasons
    stop.on_train_batch_end(7, {"loss": 1.0} | {name: value})
    assert reasons == [f"{name} is {value} at step 8 of epoch 3"]


def test_a_non_finite_loss_ends_training_at_once(model):
    def fail(reason: str) -> None:
        raise ArithmeticError(reason)

    targets = TARGETS.copy()
    targets[2] = np.nan
    epochs: list[dict[str, float]] = []
    with pytest.raises(ArithmeticError, match="nan at step 2 of epoch 1"):
        model.fit(
            WORDS,
            targets,
            batch_size=2,
            shuffle=False,
            verbose=0,
            callbacks=[StopOnNonFinite(fail), History(epochs, lambda: None)],
        )
    assert not epochs


def test_progress_counts_all_epochs_and_goes_to_standard_error(model, capsys):
    progress = Progress("some stage")
    fit(model, 3, progress, initial_epoch=1)
    assert (progress.bar.n, progress.bar.total) == (6, 6)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "some stage, epoch 2: loss" in captured.err
    assert "some stage, epoch 3: loss" in captured.err
    assert "epoch 1:" not in captured.err


def test_sample_captions_are_logged_as_images(tmp_path):
    picture = np.random.default_rng(0).integers(0, 256, (5, 7, 3)).astype(np.uint8)
    samples = SampleCaptions(tmp_path, lambda: {"a-dog": picture})
    samples.on_epoch_end(0)
    samples.on_epoch_end(1)
    (file,) = (tmp_path / "captions").iterdir()
    found = [
        (event.step, value.tag, tf.io.decode_image(value.tensor.string_val[2]).numpy())
        for event in tf.compat.v1.train.summary_iterator(str(file))
        for value in event.summary.value
    ]
    assert [(step, tag) for step, tag, _ in found] == [(0, "a-dog"), (1, "a-dog")]
    for _, _, shown in found:
        np.testing.assert_array_equal(shown, picture)


def test_the_time_of_a_step_is_a_median_of_steps_that_count(monkeypatch):
    # Seconds of eight calls of two steps; in the first four, the critic warms up.
    seconds = iter([9.0, 0.1, 0.1, 0.1, 8.0, 1.0, 1.2, 1.4, 1.0, 1.0])
    clock = [0.0]
    monkeypatch.setattr("caption_gan.training.callbacks.time.monotonic", lambda: clock[0])
    said: list[str] = []
    steps = StepTime(8, said.append)
    steps.set_params({"epochs": 10, "steps": 20})
    steps.on_epoch_begin(0)
    for call in range(10):
        steps.on_train_batch_begin(2 * call)
        clock[0] += next(seconds)
        steps.on_train_batch_end(2 * call + 1, {"loss": np.float32(1)})
    # The median of 4.0, 0.5, 0.6, 0.7 and 0.5 seconds, for the other steps.
    assert said == ["0.6 seconds per step: about 2 minutes for 182 steps, without validation"]
