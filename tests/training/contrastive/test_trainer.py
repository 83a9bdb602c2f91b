"""The loss of dual encoders against loops in NumPy, a training step, and the order of batches."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from caption_gan.config.dual_encoder import DualEncoderConfig
from caption_gan.models.dual_encoders.towers import AttentionPooling, Head
from caption_gan.training.contrastive.pairs import Pairs
from caption_gan.training.contrastive.trainer import ContrastiveTrainer, batches, contrastive_loss

B, K, J, S = 4, 3, 2, 5


def unit(rng: np.random.Generator, *shape: int) -> np.ndarray:
    vectors = rng.normal(size=shape)
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def vectors(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    is_wrong = rng.random((B, K, J)) < 0.7
    return unit(rng, B, S), unit(rng, B, K, S), unit(rng, B, K, J, S), is_wrong


def test_the_loss_equals_loops_in_double_precision():
    images, texts, wrong, is_wrong = vectors()
    scale, losses = 7.0, []
    for b in range(B):
        negatives = [texts[c, j] for c in range(B) if c != b for j in range(K)]
        negatives += [wrong[b, k, j] for k in range(K) for j in range(J) if is_wrong[b, k, j]]
        for k in range(K):
            to_images = np.exp(scale * images @ texts[b, k])
            losses.append(-np.log(to_images[b] / to_images.sum()))
            to_texts = np.exp([scale * images[b] @ text for text in (texts[b, k], *negatives)])
            losses.append(-np.log(to_texts[0] / to_texts.sum()))
    loss = contrastive_loss(
        *(tf.constant(array, tf.float32) for array in (images, texts, wrong)),
        tf.constant(is_wrong),
        tf.constant(scale),
    )
    assert float(loss) == pytest.approx(np.mean(losses), rel=1e-5)


def test_there_may_be_no_wrong_captions():
    images, texts, wrong, is_wrong = (tf.constant(array) for array in vectors())
    scale = tf.constant(3.0, tf.float64)
    nothing = contrastive_loss(images, texts, wrong, tf.zeros_like(is_wrong), scale)
    without = contrastive_loss(images, texts, wrong[:, :, :0], is_wrong[:, :, :0], scale)
    assert float(nothing) == pytest.approx(float(without))
    assert float(nothing) < float(contrastive_loss(images, texts, wrong, is_wrong, scale))


class Tower(keras.Model):
    """A head over what is given."""

    def __init__(self):
        super().__init__()
        self.head = Head(16, 8, 0.0)
        self.head.build((None, 6))
        self.built = True

    def call(self, features, training=False):
        return self.head(features, training=training)


def pairs(images: int = 8) -> Pairs:
    """Images of 2 views and captions that belong together, three and two of them in turn."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(images, 1, 6)).astype(np.float32)
    counts = [3 - number % 2 for number in range(images)]
    texts = np.repeat(-features[:, 0], counts, axis=0)
    return Pairs(
        np.repeat(features, 2, axis=1),
        texts,
        np.cumsum([0, *counts]),
        texts[:, None] + 1,
        np.ones((len(texts), 1), bool),
        np.full((len(texts), 1), "word", object),
    )


def test_training_brings_pairs_together():
    keras.utils.set_random_seed(0)
    config = DualEncoderConfig(batch_size=8, captions=2, learning_rate=1e-2)
    trainer = ContrastiveTrainer(Tower(), Tower(), config, steps=60)
    (batch,) = batches(pairs(), config, seed=0).take(1)
    step = tf.function(trainer.train_step)
    losses = [float(step(batch)["loss"]) for _ in range(60)]
    assert losses[-1] < 0.3 * losses[0]
    nearest = np.argmax(
        trainer.texts(batch["texts"][:, 0]) @ tf.transpose(trainer.images(batch["images"])), axis=1
    )
    np.testing.assert_array_equal(nearest, np.arange(8))


def test_the_scale_is_bounded():
    trainer = ContrastiveTrainer(Tower(), Tower(), DualEncoderConfig(), steps=1)
    assert float(trainer.scale) == pytest.approx(1 / 0.07)
    trainer.log_scale.assign(9.0)
    assert float(trainer.scale) == pytest.approx(100)


def test_batches_hold_captions_of_their_images():
    data = pairs(10)
    config = DualEncoderConfig(batch_size=4, captions=2)
    epochs = batches(data, config, seed=0)
    seen = [np.concatenate([batch["images"] for batch in epochs]) for _ in range(2)]
    assert len(seen[0]) == 8  # Two images do not fill a batch.
    assert not np.array_equal(*seen)
    for batch in epochs:
        texts = batch["texts"].numpy()
        np.testing.assert_allclose(texts, np.repeat(-batch["images"][:, None], 2, axis=1))
        np.testing.assert_allclose(batch["wrong"][:, :, 0], texts + 1)


def test_attention_begins_with_the_mean_and_can_choose_a_region():
    regions = tf.constant(np.random.default_rng(0).normal(size=(2, 3, 4)), tf.float32)
    pooling = AttentionPooling(2)
    pooling.build(regions.shape)
    mean = np.mean(regions, axis=1)
    np.testing.assert_allclose(pooling(regions), np.tile(mean, 3), rtol=1e-5)
    pooling.score.kernel.assign(1e3 * np.eye(4)[:, :2])
    chosen = np.argmax(pooling.norm(regions)[..., 1], axis=1)
    expected = np.take_along_axis(regions.numpy(), chosen[:, None, None], axis=1)[:, 0]
    np.testing.assert_allclose(pooling(regions)[:, 8:], expected, rtol=1e-5)
