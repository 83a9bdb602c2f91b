"""What is measured of a captioner after each epoch."""

import types

import pytest

from caption_gan.config.run import Config
from caption_gan.data.example import Example
from caption_gan.training.validation import Monitor

EXAMPLES = [
    Example("a", b"", ("a red dog runs on grass", "the dog is red")),
    Example("b", b"", ("a cat sleeps on a sofa", "the cat is asleep")),
    Example("c", b"", ("two men play tennis", "men on a court")),
]


def monitor_of(captions: list[str]) -> Monitor:
    """One of three images whose captioner says what is given."""
    monitor = object.__new__(Monitor)
    monitor.examples = EXAMPLES
    monitor.config = Config()
    monitor.is_true = None
    monitor.quality_batches = [None]
    spelled = [[(caption, -1.0)] for caption in captions]
    monitor.decoder = types.SimpleNamespace(greedy=lambda _: None, detokenize=lambda _: spelled)
    return monitor


def test_an_epoch_that_repeats_one_word_is_flagged_and_never_the_best(capsys):
    healthy = monitor_of([example.captions[1] for example in EXAMPLES]).quality()
    assert capsys.readouterr().err == ""
    collapsed = monitor_of(["a a a a a a"] * 3).quality()
    assert "signs of collapse: repeated_token_rate is 1.000" in capsys.readouterr().err
    # The epoch with the highest CIDEr is kept.
    assert collapsed["CIDEr"] < 0.05 < healthy["CIDEr"]
    assert collapsed["repeated_token_rate"] == 1
    assert collapsed["distinct_captions"] == pytest.approx(1 / 3)
