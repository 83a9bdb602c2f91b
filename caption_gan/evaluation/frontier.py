"""The quality-diversity frontier of a captioner over sampling temperatures.

A language GAN is worth its cost only if it beats maximum likelihood sampled at a lower temperature
(Caccia et al., "Language GANs Falling Short", 2020; for captions Luo and Shakhnarovich, "Analysis
of diversity-accuracy tradeoff in image captioning", 2020).

B batch, K captions per image.
"""

import json
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from caption_gan.data.example import Example
from caption_gan.evaluation.text_metrics import sample_diversity
from caption_gan.metrics.diversity import mean_length
from caption_gan.metrics.fact_accuracy import FactChecker, fact_accuracy
from caption_gan.metrics.quality import per_image_cider
from caption_gan.metrics.table import Place, shown_in
from caption_gan.models.critics.critic import Critic
from caption_gan.models.decoding import sampling
from caption_gan.models.decoding.decoder import Decoded, DecodingOptions
from caption_gan.models.decoding.reranking import rerank
from caption_gan.models.decoding.text_decoder import TextDecoder

Points = list[dict[str, float]]  # The points of a curve: metrics by name.

TEMPERATURES = (0.3, 0.4, 0.5, 0.6, 0.7, 0.85, 1.0, 1.2)
NUCLEI = (0.5, 0.7, 0.8, 0.9, 0.95)
# Samples at temperature 1 of which the critic keeps one.
CANDIDATES = (1, 2, 3)
# Images at a time; many samples of each are in memory at once.
BATCH = 50


class Frontier:
    """Draws and scores samples of the images of a split.

    Args:
        batches: Batches of the split.
        examples: Examples of the split, in the same order.
        fact_checker: Returns whether a caption is correct, given the facts of its image; None if
            the data set has no facts.
        samples: K, the number of captions per image among which diversity is measured.
        seed: Seed of the samples; curves with the same seed differ only by their captioners.
    """

    def __init__(
        self,
        batches: tf.data.Dataset,
        examples: Sequence[Example],
        fact_checker: FactChecker | None,
        samples: int,
        seed: int,
    ):
        self.batches = batches.unbatch().batch(BATCH)
        self.examples = examples
        self.fact_checker = fact_checker
        self.samples = samples
        self.seed = seed

    def temperatures(self, decoder: TextDecoder, name: str) -> Points:
        """A point for each temperature.

        Args:
            decoder: Decoder of the captioner.
            name: Name of the curve, for the progress bar.
        """
        sample_split = self._sampler(decoder, self.samples, None)
        return [
            {"temperature": temperature, **self.score(sample_split(temperature))}
            for temperature in tqdm(TEMPERATURES, desc=f"frontier of {name}", unit=" points")
        ]

    def nuclei(self, decoder: TextDecoder, name: str) -> Points:
        """A point for each nucleus, the probability mass from which top-p sampling draws.

        Args:
            decoder: Decoder of the captioner.
            name: Name of the curve, for the progress bar.
        """
        return [
            {"top_p": share, **self.score(self._sampler(decoder, self.samples, None, share)(1.0))}
            for share in tqdm(NUCLEI, desc=f"frontier of {name}", unit=" points")
        ]

    def reranked(self, decoder: TextDecoder, critic: Critic) -> Points:
        """A point for each number `drawn` of samples, of which the critic keeps the best K."""
        return [
            {"drawn": drawn, **self.score(self._sampler(decoder, drawn, critic)(1.0))}
            for drawn in tqdm(
                [candidates * self.samples for candidates in CANDIDATES],
                desc="frontier of the critic's choice",
                unit=" points",
            )
        ]

    def _sampler(
        self, decoder: TextDecoder, drawn: int, critic: Critic | None, top_p: float = 1.0
    ) -> Callable[[float], list[list[str]]]:
        """Returns a function from a temperature to K captions of each image; compiled once."""

        @tf.function(reduce_retracing=True)
        def draw(batch: dict[str, tf.Tensor], number: tf.Tensor, temperature: tf.Tensor) -> Decoded:
            regions = decoder.captioner.regions(batch)
            seed = tf.stack([self.seed, 1000 * number])
            options = DecodingOptions(
                decoder.tokenizer.sequence_length, drawn, temperature, top_p=top_p
            )
            captions = sampling.sample(decoder.captioner.generator, regions, options, seed)
            return rerank(critic, regions, captions, self.samples) if critic else captions

        def sample_split(temperature: float) -> list[list[str]]:
            return [
                [caption for caption, _ in captions]
                for number, batch in enumerate(self.batches)
                for captions in decoder.detokenize(
                    draw(batch, tf.constant(number), tf.constant(temperature))
                )
            ]

        return sample_split

    def score(self, captions: Sequence[Sequence[str]]) -> dict[str, float]:
        """Metrics of K captions per image; CIDEr is the mean over single captions."""
        ids = [example.image_id for example in self.examples]
        references = {example.image_id: example.captions for example in self.examples}
        # CIDEr is defined for one caption per image, and depends on the number of images: scoring
        # K captions as K images would change the weight of words that occur in no reference.
        scores = [
            per_image_cider(dict(zip(ids, position, strict=True)), references)
            for position in zip(*captions, strict=True)
        ]
        values = {"CIDEr": float(np.mean([list(of_images.values()) for of_images in scores]))}
        diversity = {**sample_diversity(captions), "mean_length": mean_length(captions)}
        shown = shown_in(Place.FRONTIER)
        values |= {name: metric.value for name, metric in diversity.items() if name in shown}
        if self.fact_checker:
            facts = [
                json.loads(example.facts)
                for example, of_image in zip(self.examples, captions, strict=True)
                for _ in of_image
            ]
            flat = [caption for of_image in captions for caption in of_image]
            values["fact_accuracy"] = fact_accuracy(flat, facts, self.fact_checker).value
        return values
