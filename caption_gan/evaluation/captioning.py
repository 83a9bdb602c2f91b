"""Captions the images of a split by every decoding.

B batch, K captions an image, T time, R regions.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from caption_gan.data.example import Example
from caption_gan.models.decoding.text_decoder import TextDecoder


@dataclasses.dataclass
class CaptionedImage:
    """What a captioner said of one image, beside what people say.

    Attributes:
        example: The image with its references.
        captions: For each decoding, captions with their scores, in nats a token.
        tokens: Of the greedy caption, without the end token.
        attention: Where the generator looked when it wrote them, [T, rows, columns].
        cider: Of the greedy caption.
        is_true: Whether the greedy caption is true; None where nobody knows.
    """

    example: Example
    captions: dict[str, list[tuple[str, float]]]
    tokens: list[str]
    attention: np.ndarray
    cider: float = 0.0
    is_true: bool | None = None

    def to_json(self) -> dict[str, Any]:
        """The line of `captions.jsonl`."""
        return {
            "image_id": self.example.image_id,
            "captions": {
                name: [{"caption": caption, "score": round(score, 4)} for caption, score in some]
                for name, some in self.captions.items()
            },
            "references": list(self.example.captions),
            "CIDEr": round(self.cider, 4),
        } | ({} if self.is_true is None else {"is_true": self.is_true})


def caption_images(
    decoder: TextDecoder, batches: tf.data.Dataset, examples: Sequence[Example]
) -> list[CaptionedImage]:
    """Captions every image of a split; `batches` and `examples` are in the same order."""
    described = (
        image for number, batch in enumerate(batches) for image in decoder.describe(batch, number)
    )
    progress = tqdm(described, total=len(examples), desc="captioning", unit=" images")
    return [
        CaptionedImage(example, captions, tokens, attention)
        for example, (captions, tokens, attention) in zip(examples, progress, strict=True)
    ]
