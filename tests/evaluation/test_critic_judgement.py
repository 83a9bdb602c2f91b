"""The critic's choice among samples, and how well it ranks captions."""

import json

import numpy as np
import pytest
import tensorflow as tf

from caption_gan.config.models import DecodingConfig
from caption_gan.data.example import Example
from caption_gan.evaluation import critic_judgement
from caption_gan.evaluation.critic_judgement import Candidates
from caption_gan.evaluation.frontier import COARSE, Frontier
from caption_gan.models.decoding.text_decoder import TextDecoder
from caption_gan.text.vocabulary import SPECIAL_IDS
from tests.captioners import REGIONS, captioner

WORDS = ("[PAD]", "[UNK]", "[START]", "[END]", "a", "red", "dog", "cat", "runs", "sleeps")
EXAMPLES = [
    Example("a", b"", ("a dog runs", "a red dog runs"), json.dumps("dog")),
    Example("b", b"", ("a cat sleeps", "a cat"), json.dumps("cat")),
    Example("c", b"", ("a red dog",), json.dumps("dog")),
]


class Tokenizer:
    """Words of a fixed vocabulary."""

    sequence_length = 6
    special_tokens = SPECIAL_IDS

    def tokenize(self, captions: tf.Tensor) -> tf.Tensor:
        ids = [
            [SPECIAL_IDS.start, *map(WORDS.index, caption.decode().split()), SPECIAL_IDS.end]
            for caption in captions.numpy().flat
        ]
        padded = [row + [SPECIAL_IDS.pad] * (self.sequence_length - len(row)) for row in ids]
        return tf.reshape(tf.constant(padded), [*captions.shape, self.sequence_length])

    def detokenize(self, token_ids: tf.Tensor) -> tf.Tensor:
        return tf.constant([" ".join(WORDS[i] for i in row) for row in token_ids.numpy()])


class Critic:
    """Ranks captions by the number of times that they have a word, whatever the image."""

    def __init__(self, word: str):
        self.id = WORDS.index(word)

    def encode(self, regions):
        return regions

    def rank(self, token_ids, memory):
        return tf.reduce_sum(tf.cast(token_ids == self.id, tf.float32), axis=-1)


def is_about(caption: str, animal: str) -> bool:
    return animal in caption


@pytest.fixture
def decoder() -> TextDecoder:
    return TextDecoder(captioner(dropout=0.0), Tokenizer(), DecodingConfig(), seed=0)


@pytest.fixture
def frontier() -> Frontier:
    batches = tf.data.Dataset.from_tensor_slices({"regions": tf.ones([3, *REGIONS])}).batch(2)
    return Frontier(batches, EXAMPLES, is_about, samples=2, seed=0, grid=COARSE)


CANDIDATES = Candidates(
    [["a dog", "a cat", "a", "a red red dog", "dog", "cat"]] * 3,
    np.array([[1.0, 5.0, 2.0, 9.0, 0.0, 3.0]] * 3),
    np.array([[0.0, -1.0, -2.0, -3.0, -4.0, -5.0]] * 3),
)


def test_the_highest_ranked_of_the_first_candidates_are_chosen(frontier):
    points = critic_judgement.choices(CANDIDATES, frontier)
    assert [point["drawn"] for point in points] == [2, 4, 6]
    # All of two; of four "a red red dog" and "a cat"; of six the same.
    assert [point["mean_length"] for point in points] == [2, 3, 3]
    assert [point["fact_accuracy"] for point in points] == pytest.approx([0.5] * 3)
    assert "unchosen_mean_length" not in points[0]
    # "a dog", "a"; and of six also "dog" and "cat".
    assert points[1]["unchosen_mean_length"] == pytest.approx(3 / 2)
    assert points[2]["unchosen_mean_length"] == pytest.approx(5 / 4)


def test_true_samples_against_false_ones(frontier):
    scores = critic_judgement.judge_samples(CANDIDATES, frontier.is_correct).values
    # About a dog: ranks 1, 9 and 0 against 5, 2 and 3, so 3 of 9 pairs are right; for the cat
    # 5 and 3 against 1, 2, 9 and 0, so 6 of 8. The third image is as the first.
    assert scores["critic_auc"] == pytest.approx((3 + 6 + 3) / (9 + 8 + 9))
    # The generator: 0, -3, -4 against -1, -2, -5; -1 and -5 against 0, -2, -3, -4.
    assert scores["likelihood_auc"] == pytest.approx((5 + 3 + 5) / (9 + 8 + 9))


def test_references_against_those_of_the_most_similar_image(decoder, frontier, monkeypatch):
    def auc(word: str, is_correct=None) -> float:
        scores = critic_judgement.judge_references(
            decoder, Critic(word), frontier.batches, EXAMPLES, is_correct
        )
        assert len(scores.metrics["critic_auc"].per_image) == len(EXAMPLES)
        return scores.metrics["critic_auc"].value

    # The first and the third image share "red" and "dog". The second shares only "a", which is of
    # no weight, with both, and is compared with the first.
    # "runs": 1, 1 against 0 (2 of 2); 0, 0 against 1, 1 (0 of 4); 0 against 1, 1 (0 of 2).
    assert auc("runs") == pytest.approx(2 / 8)
    # "cat": ties, 2 of 4 halves: (1 + 4 + 1) / 8.
    assert auc("cat") == pytest.approx(6 / 8)
    # References of the first and the third are true of each other.
    assert auc("cat", frontier.is_correct) == pytest.approx(1)
    # Only among the first two images: "cat" 0, 0 against 1, 1 and the reverse.
    monkeypatch.setattr(critic_judgement, "MAX_IMAGES", 2)
    assert auc("cat") == pytest.approx(4 / 8)


def test_candidates_are_ranked_as_they_are_drawn(decoder, frontier):
    drawn = critic_judgement.draw_candidates(decoder, Critic("dog"), frontier)
    assert drawn.ranks.shape == drawn.log_probabilities.shape == (3, 6)
    counts = [[caption.split().count("dog") for caption in image] for image in drawn.captions]
    np.testing.assert_array_equal(drawn.ranks, counts)
    assert len(np.unique(drawn.ranks)) > 1
