"""Metrics of quality and variety."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from caption_gan.config.models import DecodingConfig
from caption_gan.data.example import Example
from caption_gan.evaluation.frontier import NUCLEI, Frontier
from caption_gan.metrics import quality
from caption_gan.models.decoding.text_decoder import TextDecoder
from tests.captioners import REGIONS, captioner


class Spelling:
    """Token ids as words."""

    sequence_length = 8

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


def frontier(is_true=None) -> Frontier:
    batches = tf.data.Dataset.from_tensor_slices(np.zeros(3)).batch(3)
    return Frontier(batches, EXAMPLES, is_true, samples=2, seed=0)


def test_quality_is_the_mean_of_single_captions():
    metrics = frontier().score(CAPTIONS)
    references = {example.image_id: example.captions for example in EXAMPLES}
    single = [
        quality.quality(
            {example.image_id: some[k] for example, some in zip(EXAMPLES, CAPTIONS, strict=True)},
            references,
        )["CIDEr"].value
        for k in range(2)
    ]
    assert single[0] != pytest.approx(single[1])
    assert metrics["CIDEr"] == pytest.approx(sum(single) / 2)
    assert "fact_accuracy" not in metrics


def test_truth_is_of_all_captions():
    def is_true(caption: str, facts) -> bool:
        return ("dog" in caption) == facts["dog"]

    assert frontier(is_true).score(CAPTIONS)["fact_accuracy"] == pytest.approx(4 / 6)


def test_captions_that_are_alike_are_less_varied():
    varied = frontier().score(CAPTIONS)
    same = frontier().score([[some[0]] * 2 for some in CAPTIONS])
    assert same["mBLEU-4"] == pytest.approx(1)
    assert varied["mBLEU-4"] < 1
    assert varied["distinct-2"] > same["distinct-2"]
    assert varied["vocabulary"] > same["vocabulary"]


def test_a_smaller_nucleus_gives_less_varied_captions():
    """Of a captioner whose words are all as likely, which the least nucleus makes one."""
    model = captioner(dropout=0.0)
    model.generator.embedding.set_weights([0.01 * model.generator.embedding.get_weights()[0]])
    examples = [dataclasses.replace(example, image=b"") for example in EXAMPLES]
    batches = tf.data.Dataset.from_tensor_slices({"regions": tf.ones([3, *REGIONS])}).batch(3)
    decoder = TextDecoder(model, Spelling(), DecodingConfig(), seed=0)
    points = Frontier(batches, examples, None, samples=4, seed=0).nuclei(decoder, "random")
    assert [point["top_p"] for point in points] == list(NUCLEI)
    words = [point["vocabulary"] for point in points]
    assert words == sorted(words)
    assert words[0] < words[-1]
