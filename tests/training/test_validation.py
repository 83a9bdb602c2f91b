"""Metrics of captions after each epoch."""

import types

import pytest

from caption_gan.config.run import Config
from caption_gan.data.example import Example
from caption_gan.metrics.collapse import out_of_bounds
from caption_gan.training.validation import CaptionValidation

EXAMPLES = [
    Example("a", b"", ("a red dog runs on grass", "the dog is red")),
    Example("b", b"", ("a cat sleeps on a sofa", "the cat is asleep")),
    Example("c", b"", ("two men play tennis", "men on a court")),
]


def validation_of(captions: list[str]) -> CaptionValidation:
    """Returns the validation of three images, for which the captioner gives these captions."""
    validation = object.__new__(CaptionValidation)
    validation.examples = EXAMPLES
    validation.config = Config()
    validation.fact_checker = None
    validation.greedy_batches = [None]
    decoded = [[(caption, -1.0)] for caption in captions]
    validation.decoder = types.SimpleNamespace(greedy=lambda _: None, detokenize=lambda _: decoded)
    return validation


def test_an_epoch_that_repeats_one_word_is_flagged_and_never_the_best(capsys):
    healthy = validation_of([example.captions[1] for example in EXAMPLES]).greedy_metrics()
    assert capsys.readouterr().err == ""
    collapsed = validation_of(["a a a a a a"] * 3).greedy_metrics()
    assert "signs of collapse: repeated_token_rate is 1.000" in capsys.readouterr().err
    # The epoch with the highest CIDEr is saved.
    assert collapsed["CIDEr"] < 0.05 < healthy["CIDEr"]
    assert collapsed["repeated_token_rate"] == 1
    assert collapsed["distinct_captions"] == pytest.approx(1 / 3)


def sampled(images: int, ending: str = "") -> dict[str, float]:
    """Metrics of samples that are the references of the first images, with an ending."""
    validation = validation_of([])
    validation.examples = EXAMPLES[:images]
    validation.sample_batches = [None]
    validation._sample = lambda *_: None
    samples = [
        [(caption + ending, -1.0) for caption in example.captions] for example in EXAMPLES[:images]
    ]
    validation.decoder.detokenize = lambda _: samples
    return validation.sample_metrics()


def test_the_monitor_sees_captions_that_collapse_onto_punctuation():
    healthy, collapsed = sampled(3), sampled(3, " , , , ,")
    assert out_of_bounds(healthy, Config().monitor) == []
    assert collapsed["CIDEr"] == healthy["CIDEr"]
    (sign,) = out_of_bounds(collapsed, Config().monitor)
    assert sign.startswith("repeated_token_rate")


def test_dependence_on_a_single_image_is_not_measured():
    assert "image_dependence" in sampled(3)
    assert "image_dependence" not in sampled(1)
