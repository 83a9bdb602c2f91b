"""Points of the quality-diversity frontier."""

import numpy as np
import pytest
import tensorflow as tf

from caption_gan.config.models import DecodingConfig
from caption_gan.data.example import Example
from caption_gan.evaluation.frontier import Frontier, Grid
from caption_gan.metrics import quality
from caption_gan.models.decoding.text_decoder import TextDecoder
from caption_gan.text.vocabulary import SPECIAL_IDS
from tests.captioners import REGIONS, captioner


class IdTokenizer:
    """A tokenizer whose words are the token ids."""

    sequence_length = 8
    special_tokens = SPECIAL_IDS

    def detokenize(self, token_ids: tf.Tensor) -> tf.Tensor:
        return tf.strings.reduce_join(tf.strings.as_string(token_ids), axis=-1, separator=" ")


EXAMPLES = [
    Example("a", b"", ("a red dog runs", "a dog is running on grass"), '{"dog": true}'),
    Example("b", b"", ("a cat sleeps", "the cat is asleep on a sofa"), '{"dog": false}'),
    Example("c", b"", ("two dogs play", "dogs play in the snow"), '{"dog": true}'),
]
CAPTIONS = [
    ["a red dog runs", "a cat is running"],
    ["a cat sleeps", "the dog is asleep"],
    ["two dogs play in snow", "two dogs play in snow"],
]


GRID = Grid((0.01, 1.0), (0.3, 0.6))


def frontier(fact_checker=None) -> Frontier:
    batches = tf.data.Dataset.from_tensor_slices(np.zeros(3)).batch(3)
    return Frontier(batches, EXAMPLES, fact_checker, 2, 0, GRID)


def test_cider_is_the_mean_over_single_captions():
    metrics = frontier().score(CAPTIONS)
    references = {example.image_id: example.captions for example in EXAMPLES}
    single = [
        quality.quality(
            {
                example.image_id: of_image[k]
                for example, of_image in zip(EXAMPLES, CAPTIONS, strict=True)
            },
            references,
        )["CIDEr"].value
        for k in range(2)
    ]
    assert single[0] != pytest.approx(single[1])
    assert metrics["CIDEr"] == pytest.approx(sum(single) / 2)
    assert "fact_accuracy" not in metrics


def test_fact_accuracy_is_over_all_captions():
    def check_facts(caption: str, facts) -> bool:
        return ("dog" in caption) == facts["dog"]

    assert frontier(check_facts).score(CAPTIONS)["fact_accuracy"] == pytest.approx(4 / 6)


def test_identical_captions_are_less_diverse():
    diverse = frontier().score(CAPTIONS)
    same = frontier().score([[of_image[0]] * 2 for of_image in CAPTIONS])
    assert same["mBLEU-4"] == pytest.approx(1)
    assert diverse["mBLEU-4"] < 1
    assert diverse["distinct-2"] > same["distinct-2"]
    assert diverse["vocabulary"] > same["vocabulary"]


def test_objects_are_pooled_over_all_captions():
    """Objects of the references of two: dog; cat, sofa; dogs, snow."""
    points = frontier().score([["a dog", "a cat"], ["a cat", "a cat"], ["two dogs", "a man"]])
    # Named and right: dog, cat, cat, dogs of 6; agreed on: dog, cat, dogs, twice each.
    assert points["object_precision"] == pytest.approx(4 / 6)
    assert points["object_recall"] == pytest.approx(4 / 6)


def test_cooler_samples_and_smaller_nuclei_are_less_diverse():
    """Uses a captioner with almost uniform word probabilities."""
    model = captioner(dropout=0.0)
    model.generator.embedding.set_weights([0.05 * model.generator.embedding.get_weights()[0]])
    batches = tf.data.Dataset.from_tensor_slices({"regions": tf.ones([3, *REGIONS])}).batch(3)
    decoder = TextDecoder(model, IdTokenizer(), DecodingConfig(), seed=0)
    sampled = Frontier(batches, EXAMPLES, None, 4, 0, GRID)
    temperatures, nuclei = (
        sampled.temperatures(decoder, "random"),
        sampled.nuclei(decoder, "random"),
    )
    assert list(temperatures) == [0.01, 1.0]
    assert all(len(of_image) == 4 for captions in nuclei.values() for of_image in captions)
    curves = sampled.curves("random", temperatures, nuclei)
    assert list(curves) == ["random", "random, top-p"]
    assert [point["top_p"] for point in curves["random, top-p"]] == [0.3, 0.6, 1.0]
    for points in curves.values():
        words = [point["vocabulary"] for point in points]
        assert words == sorted(words)
        assert words[0] < words[-1]
    # The nucleus of all words is temperature 1.
    plain, widest = (points[-1] for points in curves.values())
    assert plain | {"top_p": 1.0} == widest | {"temperature": 1.0}
