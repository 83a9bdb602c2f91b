"""The dual encoder's reward, by hand, and as part of a training step."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from caption_gan.config.adversarial import RewardWeights, SelfCriticalConfig
from caption_gan.config.checks import check
from caption_gan.errors import CaptionGANError
from caption_gan.models.encoders.encoder import Regions
from caption_gan.settings import read_config
from caption_gan.text.tokenizer import Tokenizer
from caption_gan.text.vocabulary import build_vocabulary, write_vocabulary
from caption_gan.training.rewards.dual_encoder import DualEncoderReward
from tests.captioners import captioner

WORDS = ["red", "green", "blue", "a", "line", "bar"]
SCALE = 5.0


class Colours:
    """Images are the colours that their only region says; texts are how often they name each."""

    scale = SCALE

    def images(self, batch):
        return tf.math.l2_normalize(tf.cast(batch["regions"][:, 0, :3], tf.float32), axis=-1)

    def texts(self, texts):
        words = tf.strings.split(texts).to_tensor()  # [N, T]
        counts = tf.cast(words[:, :, None] == WORDS[:3], tf.float32)
        return tf.math.l2_normalize(tf.reduce_sum(counts, axis=1) + 0.01, axis=-1)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    path: Path = tmp_path_factory.mktemp("tokenizer") / "vocabulary.txt"
    write_vocabulary(path, build_vocabulary([" ".join(WORDS)], "word", 1, 100))
    return Tokenizer(path, "word", 6)


def test_the_reward_by_hand(tokenizer):
    reward = DualEncoderReward(Colours(), tokenizer)  # type: ignore[arg-type]
    regions = np.eye(3, dtype=np.float32)[:, None]  # [3, 1, 3]
    captions = tokenizer.tokenize(
        [["a red line", "a blue line"], ["a green bar", "a bar"], ["blue blue", "red blue"]]
    )
    found = tf.function(reward)(Regions(regions), captions, {"regions": tf.constant(regions)})
    both = SCALE * 1.01 / np.sqrt(2 * 1.01**2 + 1e-4)
    logits = np.array([SCALE * 1.01, SCALE * 0.01]) / np.sqrt(1.01**2 + 2e-4)
    own, other = logits - np.log(np.exp(logits[0]) + 2 * np.exp(logits[1]))
    of_two = both - np.log(2 * np.exp(both) + np.exp(both / 101))
    again = np.array([SCALE * 2.01, SCALE * 0.01]) / np.sqrt(2.01**2 + 2e-4)
    twice = again[0] - np.log(np.exp(again[0]) + 2 * np.exp(again[1]))
    expected = [[own, other], [own, -np.log(3)], [twice, of_two]]
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_a_step_raises_the_reward_of_the_better_captions(tokenizer, step_batch):
    config = SelfCriticalConfig(
        batch_size=8,
        captions=2,
        rewards=RewardWeights(dual_encoder=1.0),
        dual_encoder="somewhere",
        mle_weight=0.0,
        mle_weight_end=0.0,
    )
    reward = DualEncoderReward(Colours(), tokenizer)  # type: ignore[arg-type]
    trainer = config.load_trainer().from_config(
        captioner(), config, steps=10, seed=0, dual_encoder=reward
    )
    assert trainer.critic is None
    step = tf.function(trainer.train_step, autograph=False)
    logs = {name: float(value) for name, value in step(step_batch).items()}
    assert logs["dual_encoder_reward"] < 0
    assert logs["generator_gradient_norm"] > 0
    sampled = tokenizer.tokenize(tf.constant([["red", "green"]] * 8))
    values = reward(Regions(step_batch["regions"]), sampled, step_batch)
    advantages = trainer.advantages(Regions(step_batch["regions"]), sampled, step_batch)[..., 0]
    assert np.array_equal(np.argmax(values, axis=1), np.argmax(advantages, axis=1))


STAGES = "--stages=[maximum_likelihood,self_critical]"
GIVEN = ["--self_critical.rewards={cider: 0, dual_encoder: 1}", "--self_critical.dual_encoder=d"]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (GIVEN[:1], "self_critical.dual_encoder is None; give"),
        (GIVEN[1:], "rewards.dual_encoder is 0.0 and"),
        ([*GIVEN, "--self_critical.batch_size=1"], "compares the images of a step; raise it"),
        ([*GIVEN, "--jit_compile=true"], "XLA does not compile the texts"),
    ],
)
def test_settings_that_do_not_fit(settings, words):
    with pytest.raises(CaptionGANError, match=words):
        check(read_config([STAGES, *settings], "test"))
    check(read_config([STAGES, *GIVEN], "test"))
