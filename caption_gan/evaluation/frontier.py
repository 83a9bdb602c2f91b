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
from caption_gan.evaluation.text_metrics import variety
from caption_gan.metrics.diversity import mean_length
from caption_gan.metrics.fact_accuracy import FactChecker, fact_accuracy
from caption_gan.metrics.quality import per_image_cider
from caption_gan.models.critic import Critic
from caption_gan.models.decoding import sampling
from caption_gan.models.decoding.reranking import rerank
from caption_gan.models.decoding.text_decoder import TextDecoder

Points = list[dict[str, float]]  # Each has metrics by name.

TEMPERATURES = (0.3, 0.4, 0.5, 0.6, 0.7, 0.85, 1.0, 1.2)
NUCLEI = (0.5, 0.7, 0.8, 0.9, 0.95)
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
        is_true: FactChecker | None,
        samples: int,
        seed: int,
    ):
        self.batches = batches.unbatch().batch(BATCH)
        self.examples = examples
        self.is_true = is_true
        self.samples = samples
        self.seed = seed

    def temperatures(self, decoder: TextDecoder, name: str) -> Points:
        """A point for each temperature: metrics by name, `temperature` among them.

        Args:
            decoder: Of the captioner.
            name: Of the curve, for the progress bar.
        """
        draw = self._drawing(decoder, self.samples, None)
        return [
            {"temperature": temperature, **self.score(draw(temperature))}
            for temperature in tqdm(TEMPERATURES, desc=f"frontier of {name}", unit=" points")
        ]

    def nuclei(self, decoder: TextDecoder, name: str) -> Points:
        """A point for each share of probability that samples at temperature 1 are drawn from.

        Args:
            decoder: Of the captioner.
            name: Of the curve, for the progress bar.
        """
        return [
            {"top_p": share, **self.score(self._drawing(decoder, self.samples, None, share)(1.0))}
            for share in tqdm(NUCLEI, desc=f"frontier of {name}", unit=" points")
        ]

    def choices(self, decoder: TextDecoder, critic: Critic) -> Points:
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
        self, decoder: TextDecoder, drawn: int, critic: Critic | None, top_p: float = 1.0
    ) -> Callable[[float], list[list[str]]]:
        """A function from a temperature to K captions of each image; compiled once."""

        @tf.function(reduce_retracing=True)
        def draw(
            batch: dict[str, tf.Tensor], number: tf.Tensor, temperature: tf.Tensor
        ) -> sampling.Decoded:
            regions = decoder.captioner.regions(batch)
            seed = tf.stack([self.seed, 1000 * number])
            length = decoder.tokenizer.sequence_length
            captions = sampling.sample(
                *(decoder.captioner.generator, regions, length, drawn, seed, temperature),
                top_p=top_p,
            )
            return rerank(critic, regions, captions, self.samples) if critic else captions

        def every(temperature: float) -> list[list[str]]:
            return [
                [caption for caption, _ in captions]
                for number, batch in enumerate(self.batches)
                for captions in decoder.detokenize(
                    draw(batch, tf.constant(number), tf.constant(temperature))
                )
            ]

        return every

    def score(self, every: Sequence[Sequence[str]]) -> dict[str, float]:
        """Metrics of K captions of each image; CIDEr is the mean of single ones."""
        ids = [example.image_id for example in self.examples]
        references = {example.image_id: example.captions for example in self.examples}
        # One caption an image at a time, as the score is defined: words that no reference has
        # weigh the more, the more images there are.
        scores = [
            per_image_cider(dict(zip(ids, captions, strict=True)), references)
            for captions in zip(*every, strict=True)
        ]
        metrics = {"CIDEr": float(np.mean([list(some.values()) for some in scores]))}
        for name, metric in {**variety(every), "mean_length": mean_length(every)}.items():
            if name not in ("mBLEU-1", "mBLEU-2", "mBLEU-3"):
                metrics[name] = metric.value
        if self.is_true:
            facts = [
                json.loads(example.facts)
                for example, captions in zip(self.examples, every, strict=True)
                for _ in captions
            ]
            flat = [caption for captions in every for caption in captions]
            metrics["fact_accuracy"] = fact_accuracy(flat, facts, self.is_true).value
        return metrics
