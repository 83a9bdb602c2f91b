"""One image with its reference captions, and with the captions generated for it."""

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Example:
    """One image and its captions.

    Attributes:
        image_id: Unique within its data set: the path below the folder of images, below the root
            if two splits would share it, or a running number.
        image: Encoded image bytes (PNG, JPEG, GIF, BMP or WebP), as in the file.
        captions: One or more reference captions, raw text.
        facts: What is true of the image, as JSON; empty if it is not known. Only the synthetic data
            sets know it, see `caption_gan.data.synthetic.dataset`.
        image_text: Text that was read from the image, such as the labels of a figure's axes; empty
            if nobody has read it.
    """

    image_id: str
    image: bytes
    captions: tuple[str, ...]
    facts: str = ""
    image_text: str = ""


@dataclass
class CaptionedImage:
    """An image with the captions that a captioner generated for it.

    Attributes:
        example: The image with its references.
        captions: For each decoding (`greedy`, `sample`, `beam`) captions with their scores. A score
            is the mean log-probability per token, in nats.
        tokens: The T tokens of the greedy caption, without the end token.
        attention: Attention weights of these tokens, [T, rows, columns]; None if the generator has
            no attention.
        cider: CIDEr of the greedy caption.
        is_correct: Whether the greedy caption is entirely correct; None if the data set has no
            facts.
    """

    example: Example
    captions: dict[str, list[tuple[str, float]]]
    tokens: list[str]
    attention: np.ndarray | None
    cider: float = 0.0
    is_correct: bool | None = None

    @property
    def greedy(self) -> str:
        """The greedy caption; empty if there is none."""
        captions = self.captions.get("greedy")
        return captions[0][0] if captions else ""

    def to_json(self) -> dict[str, Any]:
        """The line of `captions.jsonl`."""
        return {
            "image_id": self.example.image_id,
            "captions": {
                decoding: [
                    {"caption": caption, "score": round(score, 4)} for caption, score in captions
                ]
                for decoding, captions in self.captions.items()
            },
            "references": list(self.example.captions),
            "CIDEr": round(self.cider, 4),
        } | ({} if self.is_correct is None else {"is_true": self.is_correct})
