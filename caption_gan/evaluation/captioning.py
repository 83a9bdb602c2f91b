"""Captions the images of a split with all decodings of the settings."""

from collections.abc import Sequence

import tensorflow as tf
from tqdm import tqdm

from caption_gan.data.example import CaptionedImage, Example
from caption_gan.models.decoding.text_decoder import TextDecoder


def caption_images(
    decoder: TextDecoder, batches: tf.data.Dataset, examples: Sequence[Example]
) -> list[CaptionedImage]:
    """Captions all images of a split; `batches` and `examples` are in the same order."""
    described = (
        image for number, batch in enumerate(batches) for image in decoder.describe(batch, number)
    )
    progress = tqdm(described, total=len(examples), desc="captioning", unit=" images")
    return [
        CaptionedImage(example, captions, tokens, attention)
        for example, (captions, tokens, attention) in zip(examples, progress, strict=True)
    ]
