"""Maximum likelihood: losses by hand, scheduled sampling, and which variables a step changes.

B batch, K captions per image, T time.
"""

import keras
import numpy as np
import pytest
import tensorflow as tf

from caption_gan.config.objectives import MaximumLikelihoodConfig
from caption_gan.models.captioner import Captioner
from caption_gan.models.decoding.decoder import DecodingOptions
from caption_gan.models.decoding.sampling import greedy
from caption_gan.models.encoders.convolutional import ConvolutionalEncoder
from caption_gan.models.encoders.encoder import Regions
from caption_gan.models.generators.gru import GRUGenerator
from caption_gan.text.vocabulary import END_ID, PAD_ID, START_ID, UNK_ID
from caption_gan.training.losses import cross_entropy
from caption_gan.training.objectives.maximum_likelihood import MaximumLikelihood, at_bucket_length
from tests.captioners import REGIONS, VOCABULARY, captioner

TOKEN_IDS = np.array(
    [
        [[START_ID, 4, 5, END_ID, PAD_ID]],
        [[START_ID, 5, 6, 7, END_ID]],
        [[START_ID, 8, END_ID, PAD_ID, PAD_ID]],
        [[START_ID, 4, 9, 9, END_ID]],
    ],
    np.int32,
)  # [4, 1, 5]


def configured(**settings) -> MaximumLikelihoodConfig:
    """Settings without reliance on defaults."""
    arguments = {
        "learning_rate": 1e-2,
        "matrix_learning_rate": 0.0,
        "warmup_fraction": 0.0,
        "weight_decay": 0.0,
        "gradient_clip": 1.0,
        "label_smoothing": 0.0,
        "scheduled_sampling": 0.0,
    }
    return MaximumLikelihoodConfig(**{**arguments, **settings})


@pytest.fixture(scope="module")
def batch() -> dict[str, tf.Tensor]:
    regions = np.random.default_rng(0).normal(size=(4, *REGIONS)).astype(np.float32)
    return {"regions": tf.constant(regions), "token_ids": tf.constant(TOKEN_IDS)}


def repeated(batch: dict[str, tf.Tensor], steps: int) -> tf.data.Dataset:
    return tf.data.Dataset.from_tensors(batch).repeat(steps)


@pytest.fixture(scope="module")
def overfitted(batch) -> tuple[MaximumLikelihood, list[float]]:
    """A trainer that has seen four captions many times, and its loss per epoch."""
    objective = MaximumLikelihood.from_config(
        captioner(dropout=0.0), configured(), steps=200, seed=0
    )
    history = objective.fit(repeated(batch, 20), epochs=10, shuffle=False, verbose=0)
    return objective, history.history["loss"]


def test_the_loss_falls_from_chance_to_almost_zero(overfitted):
    _, losses = overfitted
    assert losses[0] > 1
    assert losses[1] < losses[0]
    assert losses[-1] < 0.05


def test_greedy_decoding_repeats_the_learnt_captions(overfitted, batch):
    objective, _ = overfitted
    decoded = greedy(
        objective.captioner.generator,
        Regions(batch["regions"]),
        DecodingOptions(TOKEN_IDS.shape[-1]),
    )
    np.testing.assert_array_equal(decoded.token_ids, TOKEN_IDS[..., 1:])


def test_the_validation_loss_is_the_plain_cross_entropy_in_nats_per_token(batch):
    """Dropout, noise, smoothing and scheduled sampling are active in training only."""
    settings = configured(label_smoothing=0.2, scheduled_sampling=1.0)
    model = captioner(dropout=0.5)
    inputs, targets = TOKEN_IDS[..., :-1], TOKEN_IDS[..., 1:]
    logits = model.generator(batch["regions"], inputs, np.zeros((4, 1, 3), np.float32))
    logs = np.array(tf.nn.log_softmax(logits))
    chosen = np.take_along_axis(logs, targets[..., None], axis=-1)[..., 0]
    expected = -chosen[targets != PAD_ID].mean()
    for seed in (0, 1):
        objective = MaximumLikelihood.from_config(model, settings, steps=10, seed=seed)
        for _ in range(2):
            objective.reset_metrics()
            loss = objective.test_step(batch)["loss"]
            assert float(loss) == pytest.approx(expected, rel=1e-4)
    first, second = (float(objective.batch_loss(batch, training=True)) for _ in range(2))
    assert first != second


@pytest.mark.parametrize(("longest", "expected"), [(2, 8), (8, 8), (9, 10), (10, 10), (11, 12)])
def test_batches_are_cut_to_the_shortest_bucket_that_holds_them(longest, expected):
    """Three buckets for 12 tokens: 8, 10, 12."""
    token_ids = np.full((2, 2, 12), PAD_ID)
    token_ids[0, 0, :2] = token_ids[1, 1, :longest] = 5
    cut = tf.function(lambda captions: at_bucket_length(tf.shape, captions, buckets=3))
    assert cut(tf.constant(token_ids)).numpy().tolist() == [2, 2, expected]


def test_cutting_a_batch_changes_neither_losses_nor_weights(batch):
    """Captions of up to 5 tokens are padded to 10."""
    token_ids = tf.pad(batch["token_ids"], [[0, 0], [0, 0], [0, 5]])
    losses, weights = [], []
    for buckets in (1, 3):
        model = captioner(dropout=0.0, noise_size=0)
        objective = MaximumLikelihood.from_config(
            model, configured(length_buckets=buckets), 10, seed=0
        )
        padded = repeated(batch | {"token_ids": token_ids}, 3)
        losses.append(objective.fit(padded, shuffle=False, verbose=0).history["loss"])
        weights.append(model.get_weights())
    np.testing.assert_allclose(*losses, rtol=1e-5)
    for uncut, cut in zip(*weights, strict=True):
        np.testing.assert_allclose(uncut, cut, atol=1e-4)


def test_noise_makes_training_losses_differ_without_dropout(batch):
    objective = MaximumLikelihood.from_config(captioner(dropout=0.0), configured(), steps=1, seed=0)
    first, second = (float(objective.batch_loss(batch, training=True)) for _ in range(2))
    assert first != second


def test_label_smoothing_is_active_in_training_only(batch):
    model = captioner(dropout=0.0, noise_size=0)
    objective = MaximumLikelihood.from_config(model, configured(label_smoothing=0.3), 1, seed=0)
    inputs, targets = batch["token_ids"][..., :-1], batch["token_ids"][..., 1:]
    logits = model.generator(batch["regions"], inputs, tf.zeros([4, 1, 0]))
    for training, smoothing in ((True, 0.3), (False, 0.0)):
        expected = cross_entropy(logits, targets, targets != PAD_ID, smoothing)
        loss = objective.batch_loss(batch, training=training)
        assert float(loss) == pytest.approx(float(expected), rel=1e-5)


class Counting(GRUGenerator):
    """A double that predicts n + 1 after word n, and even more likely the special tokens."""

    def teacher_forcing(self, token_ids, memory, noise, training=False):
        logits = 50.0 * tf.one_hot(token_ids + 1, self.vocabulary_size)
        forbidden = tf.reduce_sum(tf.one_hot([PAD_ID, START_ID, UNK_ID], self.vocabulary_size), 0)
        return logits + 100.0 * forbidden


@pytest.fixture(scope="module")
def mixing() -> MaximumLikelihood:
    model = captioner()
    objective = MaximumLikelihood.from_config(model, configured(scheduled_sampling=0.4), 10, seed=0)
    objective.captioner = Captioner(model.encoder, Counting(40, 2, 2, 1, 1, 0.0))
    return objective


def mix(objective: MaximumLikelihood, step: int) -> tuple[np.ndarray, np.ndarray]:
    """Input words [100, 5, 8] before and after scheduled sampling at a step."""
    inputs = np.full((100, 5, 8), 20, np.int32)
    inputs[..., 0] = START_ID
    inputs[..., 6:] = PAD_ID
    inputs[..., 1::2][inputs[..., 1::2] == 20] = 30
    objective.optimizer.iterations.assign(step)
    after = objective.mix_predicted_words(
        Regions(tf.zeros([100, *REGIONS])), tf.constant(inputs), tf.zeros([100, 5, 1])
    )
    return inputs, np.array(after)


@pytest.mark.parametrize(("step", "share"), [(0, 0.0), (5, 0.2), (10, 0.4)])
def test_the_share_of_predicted_words_grows_from_zero(mixing, step, share):
    inputs, after = mix(mixing, step)
    words = inputs[..., 1:6]
    replaced = (after[..., 1:6] != words).mean()
    # 2,500 words: three standard errors are 0.03.
    assert replaced == pytest.approx(share, abs=0.03 if share else 0)


def test_predicted_words_never_replace_padding_or_the_start(mixing):
    _, after = mix(mixing, 10)
    np.testing.assert_array_equal(after[..., 0], START_ID)
    np.testing.assert_array_equal(after[..., 6:], PAD_ID)


def test_predicted_words_follow_from_the_real_words_before_them(mixing):
    inputs, after = mix(mixing, 10)
    changed = after != inputs
    predicted = np.roll(inputs, 1, axis=-1) + 1
    np.testing.assert_array_equal(after[changed], predicted[changed])
    assert not np.isin(after[changed], (PAD_ID, START_ID, UNK_ID)).any()
    # At every position except the first and the padded ones.
    assert changed.any(axis=(0, 1)).tolist() == [False, *[True] * 5, False, False]


def with_images(trainable: bool) -> tuple[MaximumLikelihood, dict[str, tf.Tensor]]:
    keras.utils.set_random_seed(0)
    encoder = ConvolutionalEncoder(16, 16, 2)
    encoder.build((None, 16, 16, 3))
    encoder.trainable = trainable
    generator = GRUGenerator(VOCABULARY, 8, 16, 2, 3, 0.0)
    generator.build((None, *encoder.regions_shape))
    objective = MaximumLikelihood.from_config(
        Captioner(encoder, generator), configured(), steps=20, seed=0
    )
    images = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3)).astype(np.uint8)
    return objective, {"image": tf.constant(images), "token_ids": tf.constant(TOKEN_IDS)}


@pytest.mark.parametrize("trainable", [True, False])
def test_an_encoder_is_updated_unless_it_is_frozen(trainable):
    objective, batch = with_images(trainable)
    encoder = objective.captioner.encoder
    before = {weight.path: np.array(weight) for weight in encoder.weights}
    generator_before = objective.captioner.generator.get_weights()
    objective.fit(repeated(batch, 2), shuffle=False, verbose=0)
    changed = {
        weight.path: not np.array_equal(before[weight.path], weight) for weight in encoder.weights
    }
    assert set(changed.values()) == {trainable}, changed
    assert not np.array_equal(generator_before[0], objective.captioner.generator.get_weights()[0])
