"""Captions a split and scores the captions.

B batch, K captions an image, T time, R regions.
"""

import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from caption_gan.config import DecodingConfig
from caption_gan.data.example import Example
from caption_gan.data.images import thumbnails
from caption_gan.metrics import diversity, quality, truth
from caption_gan.models import decoding
from caption_gan.models.beam_search import beam_search
from caption_gan.models.captioner import Captioner
from caption_gan.text.tokenizer import Tokenizer

IsTrue = Callable[[str, Any], bool]


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


class Decoder:
    """Writes captions by every decoding that the settings ask for, compiled once.

    Args:
        captioner: Writes.
        tokenizer: Spells.
        config: Which decodings, and how.
        seed: Of the samples.
    """

    def __init__(
        self, captioner: Captioner, tokenizer: Tokenizer, config: DecodingConfig, seed: int
    ):
        self.captioner = captioner
        self.tokenizer = tokenizer
        self.config = config
        self.seed = seed

    @tf.function(reduce_retracing=True)
    def greedy(self, batch: Mapping[str, tf.Tensor]) -> decoding.Decoded:
        """One caption an image, the likeliest word at each step."""
        regions = self.captioner.regions(batch)
        return decoding.greedy(self.captioner.generator, regions, self.tokenizer.sequence_length)

    @tf.function(reduce_retracing=True)
    def sample(self, batch: Mapping[str, tf.Tensor], number: tf.Tensor) -> decoding.Decoded:
        """K captions an image; `number` is the batch's, so that batches draw differently."""
        config = self.config
        return decoding.sample(
            self.captioner.generator,
            self.captioner.regions(batch),
            self.tokenizer.sequence_length,
            config.samples,
            # Odd and even leave room for a second seed within.
            tf.stack([self.seed, 1000 * number]),
            config.temperature,
            config.top_k,
            config.top_p,
        )

    @tf.function(reduce_retracing=True)
    def beam(self, batch: Mapping[str, tf.Tensor]) -> decoding.Decoded:
        """The best captions of a beam, best first."""
        config = self.config
        return beam_search(
            self.captioner.generator,
            self.captioner.regions(batch),
            self.tokenizer.sequence_length,
            config.beam,
            config.length_penalty,
        )

    def spell(self, decoded: decoding.Decoded) -> list[list[tuple[str, float]]]:
        """Captions with scores for each image, from [B, K, T]."""
        captions, length = decoded.token_ids.shape[1:]
        texts = self.tokenizer.detokenize(tf.reshape(decoded.token_ids, [-1, length])).numpy()
        pairs = zip(texts, decoded.scores.numpy().flat, strict=True)
        flat = [(text.decode(), float(score)) for text, score in pairs]
        return [flat[start : start + captions] for start in range(0, len(flat), captions)]

    def describe(
        self, batch: Mapping[str, tf.Tensor], number: int
    ) -> Iterator[tuple[dict[str, list[tuple[str, float]]], list[str], np.ndarray]]:
        """Captions by decoding, and tokens and attention of the greedy one, for each image."""
        greedy = self.greedy(batch)
        spelled = {"greedy": self.spell(greedy)}
        spelled["sample"] = self.spell(self.sample(batch, tf.constant(number)))
        if self.config.beam > 1:
            spelled["beam"] = self.spell(self.beam(batch))
        tokens = self.tokenizer.token_strings(greedy.token_ids[:, 0]).numpy()
        attention = greedy.attention[:, 0].numpy()  # [B, T, R]
        for row, words in enumerate(tokens):
            kept = [word.decode() for word in words if word not in (b"", b"[PAD]", b"[END]")]
            yield (
                {name: captions[row] for name, captions in spelled.items()},
                kept,
                attention[row, : len(kept)].reshape(-1, *self.captioner.encoder.grid),
            )


def caption_images(
    decoder: Decoder, batches: tf.data.Dataset, examples: Sequence[Example]
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


def score_captions(
    captions: Sequence[str], examples: Sequence[Example], is_true: IsTrue | None
) -> dict[str, float]:
    """Figures of one caption an image: quality, signs of collapse, and truth where it is known."""
    ids = [example.image_id for example in examples]
    references = {example.image_id: example.captions for example in examples}
    figures = quality.quality(dict(zip(ids, captions, strict=True)), references)
    figures |= _signs_of_collapse(captions)
    if is_true:
        facts = [json.loads(example.facts) for example in examples]
        figures["fact_accuracy"] = truth.fact_accuracy(captions, facts, is_true)
    return figures


def score(images: Sequence[CaptionedImage], split: str, is_true: IsTrue | None) -> dict[str, float]:
    """Scores captioned images, and notes CIDEr and truth of each.

    Args:
        images: What was said; `cider` and `is_true` are filled in.
        split: First part of the figures' names.
        is_true: Tells whether a caption is true of facts, for data that know them.

    Returns:
        Figures by `<split>/<decoding>/<metric>`. Those of quality are of one caption an image:
        the best of a beam, the first of the samples.
    """
    examples = [image.example for image in images]
    figures: dict[str, dict[str, float]] = {}
    for name in images[0].captions:
        every = [[caption for caption, _ in image.captions[name]] for image in images]
        figures[name] = score_captions([captions[0] for captions in every], examples, is_true)
        if len(every[0]) > 1:
            flat = [caption for captions in every for caption in captions]
            figures[name]["mBLEU-4"] = diversity.mbleu(every)
            figures[name]["distinct-1"] = diversity.distinct_n(flat, 1)
            figures[name]["distinct-2"] = diversity.distinct_n(flat, 2)
            figures[name]["vocabulary"] = diversity.vocabulary_size(flat)
    figures["reference"] = _signs_of_collapse([example.captions[0] for example in examples])

    greedy = {image.example.image_id: image.captions["greedy"][0][0] for image in images}
    references = {example.image_id: example.captions for example in examples}
    cider = quality.per_image_cider(greedy, references)
    for image in images:
        image.cider = cider[image.example.image_id]
        if is_true:
            image.is_true = is_true(greedy[image.example.image_id], json.loads(image.example.facts))
    return {
        f"{split}/{name}/{metric}": value
        for name, values in figures.items()
        for metric, value in values.items()
    }


def _signs_of_collapse(captions: Sequence[str]) -> dict[str, float]:
    return {
        "repeated_token_rate": diversity.repeated_token_rate(captions),
        "distinct_captions": diversity.distinct_share(captions),
        "mean_length": diversity.mean_length(captions),
    }


def baselines(
    split: str,
    examples: Sequence[Example],
    training: Sequence[Example],
    is_true: IsTrue,
    constants: int = 500,
    side: int = 32,
) -> dict[str, float]:
    """What a captioner reaches that does not see, or does not understand, the image.

    Args:
        split: First part of the figures' names.
        examples: Of the split.
        training: Of the training split.
        is_true: Tells whether a caption is true of facts.
        constants: Number of training captions that are tried as the one caption for all images.
        side: Images are compared as thumbnails of so many pixels a side.

    Returns:
        `<split>/blind/fact_accuracy`: of the best constant caption;
        `<split>/nearest/fact_accuracy`: of the captions of the training image with the smallest
        Euclidean distance in pixels.
    """
    facts = [json.loads(example.facts) for example in examples]
    blind = max(
        truth.fact_accuracy([example.captions[0]] * len(facts), facts, is_true)
        for example in training[:constants]
    )
    ours, theirs = (
        thumbnails([example.image for example in some], side) for some in (examples, training)
    )
    # Of |a - b|^2 = |a|^2 - 2 a.b + |b|^2 the first term is the same for every neighbour.
    nearest = np.argmin((theirs**2).sum(axis=1) - 2 * ours @ theirs.T, axis=1)
    captions = [training[index].captions[0] for index in nearest]
    return {
        f"{split}/blind/fact_accuracy": blind,
        f"{split}/nearest/fact_accuracy": truth.fact_accuracy(captions, facts, is_true),
    }
