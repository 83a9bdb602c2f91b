"""Quality against variety: what a captioner reaches at every temperature.

A language GAN is worth its trouble only if it beats maximum likelihood that is sampled at a lower
temperature (Caccia et al., "Language GANs Falling Short", 2020; for captions Luo and
Shakhnarovich, "Analysis of diversity-accuracy tradeoff in image captioning", 2020).

B batch, K captions an image.
"""

import json
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from caption_gan.data.example import Example
from caption_gan.evaluation import Decoder, IsTrue
from caption_gan.metrics import diversity, quality, truth
from caption_gan.models import decoding
from caption_gan.models.critic import Critic
from caption_gan.models.reranking import rerank

TEMPERATURES = (0.3, 0.4, 0.5, 0.6, 0.7, 0.85, 1.0, 1.2)
# Of so many samples at temperature 1 the critic keeps one.
CHOICES = (1, 2, 3)
# Images at a time; many samples of each are held at once.
BATCH = 50


class Frontier:
    """Draws and scores samples of the images of a split.

    Args:
        batches: Of the split.
        examples: Of the split, in the same order.
        is_true: Tells whether a caption is true of facts, for data that know them.
        samples: K; variety is measured among them.
        seed: Of the samples; curves with the same seed differ by their captioners alone.
    """

    def __init__(
        self,
        batches: tf.data.Dataset,
        examples: Sequence[Example],
        is_true: IsTrue | None,
        samples: int,
        seed: int,
    ):
        self.batches = batches.unbatch().batch(BATCH)
        self.examples = examples
        self.is_true = is_true
        self.samples = samples
        self.seed = seed

    def temperatures(self, decoder: Decoder, name: str) -> list[dict[str, float]]:
        """A point for each temperature: figures by name, `temperature` among them.

        Args:
            decoder: Of the captioner.
            name: Of the curve, for the progress bar.
        """
        draw = self._drawing(decoder, self.samples, None)
        return [
            {"temperature": temperature, **self.score(draw(temperature))}
            for temperature in tqdm(TEMPERATURES, desc=f"frontier of {name}", unit=" points")
        ]

    def choices(self, decoder: Decoder, critic: Critic) -> list[dict[str, float]]:
        """A point for each number of samples, `drawn`, of which the critic keeps the best."""
        return [
            {"drawn": drawn, **self.score(self._drawing(decoder, drawn, critic)(1.0))}
            for drawn in tqdm(
                [choice * self.samples for choice in CHOICES],
                desc="frontier of the critic's choice",
                unit=" points",
            )
        ]

    def _drawing(
        self, decoder: Decoder, drawn: int, critic: Critic | None
    ) -> Callable[[float], list[list[str]]]:
        """A function from a temperature to K captions of each image; compiled once."""

        @tf.function(reduce_retracing=True)
        def draw(
            batch: dict[str, tf.Tensor], number: tf.Tensor, temperature: tf.Tensor
        ) -> decoding.Decoded:
            regions = decoder.captioner.regions(batch)
            seed = tf.stack([self.seed, 1000 * number])
            length = decoder.tokenizer.sequence_length
            captions = decoding.sample(
                *(decoder.captioner.generator, regions, length, drawn, seed, temperature)
            )
            return rerank(critic, regions, captions, self.samples) if critic else captions

        def every(temperature: float) -> list[list[str]]:
            return [
                [caption for caption, _ in captions]
                for number, batch in enumerate(self.batches)
                for captions in decoder.spell(
                    draw(batch, tf.constant(number), tf.constant(temperature))
                )
            ]

        return every

    def score(self, every: Sequence[Sequence[str]]) -> dict[str, float]:
        """Figures of K captions of each image; CIDEr is the mean of single ones."""
        ids = [example.image_id for example in self.examples]
        references = {example.image_id: example.captions for example in self.examples}
        # One caption an image at a time, as the score is defined: words that no reference has
        # weigh the more, the more images there are.
        scores = [
            quality.per_image_cider(dict(zip(ids, captions, strict=True)), references)
            for captions in zip(*every, strict=True)
        ]
        flat = [caption for captions in every for caption in captions]
        figures = {
            "CIDEr": float(np.mean([list(some.values()) for some in scores])),
            "mBLEU-4": diversity.mbleu(every),
            "distinct-1": diversity.distinct_n(flat, 1),
            "distinct-2": diversity.distinct_n(flat, 2),
            "vocabulary": diversity.vocabulary_size(flat),
            "mean_length": diversity.mean_length(flat),
        }
        if self.is_true:
            facts = [
                json.loads(example.facts)
                for example, captions in zip(self.examples, every, strict=True)
                for _ in captions
            ]
            figures["fact_accuracy"] = truth.fact_accuracy(flat, facts, self.is_true)
        return figures
