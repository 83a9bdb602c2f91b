"""The quality-diversity frontier of a captioner over temperatures and nuclei of sampling.

A language GAN is worth its cost only if it beats maximum likelihood sampled at a lower temperature
(Caccia et al., "Language GANs Falling Short", 2020; for captions Luo and Shakhnarovich, "Analysis
of diversity-accuracy tradeoff in image captioning", 2020) or from a nucleus.

B batch, K captions per image, P points of a curve, V vocabulary.
"""

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from caption_gan.data.example import Example
from caption_gan.evaluation.text_metrics import sample_diversity
from caption_gan.metrics.cider import CiderScorer
from caption_gan.metrics.diversity import mean_length
from caption_gan.metrics.envelope import TOP_P
from caption_gan.metrics.fact_accuracy import FactChecker
from caption_gan.metrics.grounding import mentions
from caption_gan.metrics.metric import Metric
from caption_gan.metrics.table import Place, shown_in
from caption_gan.models.decoding import sampling
from caption_gan.models.decoding.decoder import Decoded, DecodingOptions
from caption_gan.models.decoding.text_decoder import TextDecoder
from caption_gan.text.scripts import are_unspaced

Points = list[dict[str, float]]  # The points of a curve: metrics by name.
Captions = list[list[str]]  # K captions of each image.


class Grid(NamedTuple):
    """The points of the curves.

    Attributes:
        temperatures: One of them is 1.
        nuclei: Probability masses below 1 from which top-p sampling draws.
    """

    temperatures: tuple[float, ...]
    nuclei: tuple[float, ...]


# What the report of every run of several stages draws, and what is drawn on request.
COARSE = Grid((0.3, 0.5, 0.7, 1.0), (0.3, 0.5, 0.7, 0.9))
FINE = Grid((0.3, 0.4, 0.5, 0.6, 0.7, 0.85, 1.0, 1.2), (0.3, 0.5, 0.7, 0.8, 0.9, 0.95))
# Samples that are decoded at a time; more gain no speed on a CPU and take memory.
ROWS = 750


class Frontier:
    """Draws and scores samples of the images of a split.

    All points of a curve are sampled together, so that each image is encoded once.

    Args:
        batches: Batches of the split.
        examples: Examples of the split, in the same order.
        fact_checker: Returns whether a caption is correct, given the facts of its image; None if
            the data set has no facts.
        samples: K, the number of captions per image among which diversity is measured.
        seed: Seed of the samples; curves with the same seed differ only by their captioners.
        grid: The points of the curves.
    """

    def __init__(
        self,
        batches: tf.data.Dataset,
        examples: Sequence[Example],
        fact_checker: FactChecker | None,
        samples: int,
        seed: int,
        grid: Grid,
    ):
        self.batches = batches
        self.examples = examples
        self.samples = samples
        self.seed = seed
        self.grid = grid
        self.references = {example.image_id: example.captions for example in examples}
        self.cider = CiderScorer(self.references)
        # Whether a caption of the image at a position of the split is correct; None without facts.
        self.is_correct: Callable[[int, str], bool] | None = None
        if fact_checker:
            facts = [json.loads(example.facts) for example in examples]
            # Cached: samples at a low temperature are often the same.
            self.is_correct = functools.cache(
                lambda image, caption: fact_checker(caption, facts[image])
            )

    def temperatures(self, decoder: TextDecoder, name: str) -> dict[float, Captions]:
        """Draws K captions of each image at each temperature.

        Args:
            decoder: Decoder of the captioner.
            name: Name of the captioner, for the progress bar.
        """
        values = tf.repeat(self.grid.temperatures, self.samples)  # [P K]
        values = values[tf.newaxis, :, tf.newaxis]  # [1, P K, 1]
        options = DecodingOptions(decoder.tokenizer.sequence_length, temperature=values)
        return self._draw(decoder, self.grid.temperatures, options, f"temperatures of {name}")

    def nuclei(self, decoder: TextDecoder, name: str) -> dict[float, Captions]:
        """Draws K captions of each image from each nucleus, at temperature 1.

        Args:
            decoder: Decoder of the captioner.
            name: Name of the captioner, for the progress bar.
        """
        values = tf.repeat(self.grid.nuclei, self.samples)  # [P K]
        values = values[tf.newaxis, :, tf.newaxis]  # [1, P K, 1]
        options = DecodingOptions(decoder.tokenizer.sequence_length, top_p=values)
        return self._draw(decoder, self.grid.nuclei, options, f"nuclei of {name}")

    def curves(
        self, name: str, temperatures: Mapping[float, Captions], nuclei: Mapping[float, Captions]
    ) -> dict[str, Points]:
        """Scores what `temperatures` and `nuclei` have drawn: two curves by name.

        Both contain temperature 1 without a nucleus, which is the nucleus of all words.
        """
        points = self._points("temperature", temperatures)
        (plain,) = [point for point in points if point["temperature"] == 1.0]
        widest = {"top_p": 1.0} | {key: plain[key] for key in plain if key != "temperature"}
        return {name: points, f"{name}{TOP_P}": [*self._points("top_p", nuclei), widest]}

    def _points(self, axis: str, draws: Mapping[float, Captions]) -> Points:
        return [{axis: value, **self.score(captions)} for value, captions in draws.items()]

    def _draw(
        self, decoder: TextDecoder, values: Sequence[float], options: DecodingOptions, name: str
    ) -> dict[float, Captions]:
        options = options._replace(samples=len(values) * self.samples)
        batches = self.batches.unbatch().batch(max(1, ROWS // options.samples))

        # With a signature, a smaller last batch needs no second trace.
        @tf.function(input_signature=[batches.element_spec, tf.TensorSpec([], tf.int32)])
        def draw(batch: dict[str, tf.Tensor], number: tf.Tensor) -> Decoded:
            regions = decoder.captioner.regions(batch)
            seed = tf.stack([self.seed, 1000 * number])
            return sampling.sample(decoder.captioner.generator, regions, options, seed)

        drawn: dict[float, Captions] = {value: [] for value in values}
        with tqdm(total=len(self.examples), desc=name, unit=" images", mininterval=1) as progress:
            for number, batch in enumerate(batches):
                for of_image in decoder.detokenize(draw(batch, tf.constant(number))):
                    texts = [text for text, _ in of_image]
                    for point, captions in enumerate(drawn.values()):
                        first = point * self.samples
                        captions.append(texts[first : first + self.samples])
                    progress.update()
        return drawn

    def score(self, captions: Sequence[Sequence[str]]) -> dict[str, float]:
        """Metrics of K captions per image; quality is the mean over single captions."""
        ids = list(self.references)
        scores = [
            self.cider.score(image_id, caption)
            for image_id, of_image in zip(ids, captions, strict=True)
            for caption in of_image
        ]
        values = {"CIDEr": float(np.mean(scores))}
        diversity = {**sample_diversity(captions), "mean_length": mean_length(captions)}
        shown = shown_in(Place.FRONTIER)
        values |= {name: metric.value for name, metric in diversity.items() if name in shown}
        if self.is_correct:
            correct = [
                self.is_correct(image, caption)
                for image, of_image in enumerate(captions)
                for caption in of_image
            ]
            values["fact_accuracy"] = float(np.mean(correct))
        elif not are_unspaced(text for texts in self.references.values() for text in texts):
            positions = [
                mentions(dict(zip(ids, position, strict=True)), self.references)
                for position in zip(*captions, strict=True)
            ]
            for name in ("object_recall", "object_precision"):
                # Counts are pooled over all captions.
                sums = np.sum([metrics[name].per_image for metrics in positions], axis=0)
                values[name] = Metric(sums, positions[0][name].from_sums).value
        return values
