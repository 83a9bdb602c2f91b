"""Untrained runs for tests, made in a second."""

import io
from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np
from PIL import Image

from caption_gan.fit import start_run
from caption_gan.models.encoders.encoder import build_encoder
from caption_gan.run import RunDirectory, build_captioner, save_weights
from caption_gan.settings import read_config
from caption_gan.text.tokenizer import Tokenizer
from tests.programs import SMALL

LENGTH = 24  # text.sequence_length
# Of the run that is exported once for all tests.
METRICS = {
    "val/greedy/CIDEr": 0.5,
    "val/greedy/BLEU-1": 0.7,
    "intervals": {"val/greedy/CIDEr": [0.4, 0.6]},
    "collapsed": {"val": ["greedy: image_dependence is 0.000, less than 0.3"]},
}
CAPTIONS = ["a red line rises", "a blue bar falls while the green one rises", "two dots cross"]


def untrained_run(
    path: Path, captions: Sequence[str] = CAPTIONS, seed: int = 0, settings: Sequence[str] = ()
) -> RunDirectory:
    """Returns a run without training, whose captions are long and meaningless."""
    directory = RunDirectory(path)
    config = read_config([*SMALL, *settings], "test")
    start_run(directory, config, captions)
    keras.utils.set_random_seed(seed)
    tokenizer = Tokenizer(directory.vocabulary, "word", LENGTH)
    captioner = build_captioner(config, build_encoder(config.encoder), tokenizer.vocabulary_size)
    save_weights(captioner, directory.best_weights)
    return directory


def picture(seed: int) -> bytes:
    """Returns a PNG file of noise."""
    pixels = np.random.default_rng(seed).integers(0, 256, (20 + seed, 40, 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


IMAGES = [picture(seed) for seed in range(5)]
