"""What is measured and shown of a captioner while it is trained."""

import json
import sys
from collections.abc import Sequence
from itertools import islice

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from caption_gan.config.run import Config
from caption_gan.data.example import Example
from caption_gan.data.pipeline import Pipeline
from caption_gan.data.shards.files import PreparedSplit
from caption_gan.data.shards.records import read_examples
from caption_gan.data.sources.registry import build_fact_checker
from caption_gan.metrics import diversity
from caption_gan.metrics.collapse import image_dependence, out_of_bounds
from caption_gan.metrics.fact_accuracy import fact_accuracy
from caption_gan.metrics.metric import DistinctCount, Metric
from caption_gan.metrics.quality import quality
from caption_gan.models.decoding import sampling
from caption_gan.models.decoding.decoder import Decoded, DecodingOptions
from caption_gan.models.decoding.text_decoder import TextDecoder
from caption_gan.reporting.pictures import attention_picture

# Enough for a choice among epochs (the standard error of a share of one half is 0.022), and
# seconds rather than half a minute an epoch.
MONITORED_IMAGES = 500


class Monitor:
    """Captions validation images during training.

    Args:
        decoder: Writes the captions.
        pipeline: Gives the batches.
        prepared: The validation split.
        config: Settings of the run.
    """

    def __init__(
        self,
        decoder: TextDecoder,
        pipeline: Pipeline,
        prepared: PreparedSplit,
        config: Config,
    ):
        self.decoder = decoder
        self.sequence_length = pipeline.tokenizer.sequence_length
        count = max(MONITORED_IMAGES, config.monitor.images, config.logging.images)
        self.examples: list[Example] = list(islice(read_examples(prepared), count))
        self.config = config
        self.is_true = build_fact_checker(config.data)

        def first(count: int, batch_size: int) -> tf.data.Dataset:
            batches = pipeline.validation(prepared, batch_size)
            return batches.unbatch().take(count).batch(batch_size).cache()

        size = config.decoding.batch_size
        self.quality_batches = first(MONITORED_IMAGES, size)
        self.health_batches = first(config.monitor.images, size)
        self.shown = min(config.logging.images, len(self.examples))
        self.picture_batches = first(self.shown, max(self.shown, 1))

    def quality(self) -> dict[str, float]:
        """Figures of greedy captions of the first images."""
        watched = self.examples[:MONITORED_IMAGES]
        captions = [
            caption
            for batch in self.quality_batches
            for ((caption, _),) in self.decoder.detokenize(self.decoder.greedy(batch))
        ]
        by_id = {example.image_id: example.captions for example in watched}
        scores = quality(dict(zip(by_id, captions, strict=True)), by_id)
        one_each = [[caption] for caption in captions]
        figures: dict[str, Metric | DistinctCount] = {
            "CIDEr": scores["CIDEr"],
            "BLEU-4": scores["BLEU-4"],
            "repeated_token_rate": diversity.repeated_token_rate(one_each),
            "distinct_captions": diversity.distinct_captions(one_each),
        }
        if self.is_true:
            facts = [json.loads(example.facts) for example in watched]
            figures["fact_accuracy"] = fact_accuracy(captions, facts, self.is_true)
        values = {name: figure.value for name, figure in figures.items()}
        rate = {"repeated_token_rate": values["repeated_token_rate"]}
        if signs := out_of_bounds(rate, self.config.monitor):
            tqdm.write(f"signs of collapse: {signs[0]}", file=sys.stderr)  # Keeps the bar's line.
        return values

    def health(self) -> dict[str, float]:
        """Figures of samples of the first images, named as the bounds in `MonitorConfig`.

        Those of variety are shares of what the references of the same images have.
        """
        settings = self.config.monitor
        watched = self.examples[: settings.images]
        every = [
            [caption for caption, _ in captions]
            for number, batch in enumerate(self.health_batches)
            for captions in self.decoder.detokenize(
                self._sample(batch, tf.constant(number), settings.samples)
            )
        ]
        references = [list(example.captions[: settings.samples]) for example in watched]
        ours, theirs = _variety(every), _variety(references)
        figures = {name: value / max(theirs[name], 1e-9) for name, value in ours.items()}
        first = [captions[0] for captions in every]
        one_each = [[caption] for caption in first]
        figures["repeated_token_rate"] = diversity.repeated_token_rate(one_each).value
        figures["mbleu"] = diversity.mbleu(every)["mBLEU-4"].value
        targets = {str(number): captions for number, captions in enumerate(references)}
        right, wrong = (
            quality(dict(zip(targets, captions, strict=True)), targets)["CIDEr"].value
            for captions in (first, first[1:] + first[:1])
        )
        figures["image_dependence"] = image_dependence(right, right - wrong)
        figures["CIDEr"] = right
        if self.is_true:
            facts = [
                json.loads(example.facts) for example in watched for _ in range(settings.samples)
            ]
            flat = [caption for captions in every for caption in captions]
            figures["fact_accuracy"] = fact_accuracy(flat, facts, self.is_true).value
        return figures

    def pictures(self) -> dict[str, np.ndarray]:
        """Pictures of a few images with caption and attention, by image id."""
        described = (
            image for batch in self.picture_batches for image in self.decoder.describe(batch, 0)
        )
        return {
            example.image_id: np.asarray(attention_picture(example.image, tokens, attention))
            for example, (_, tokens, attention) in zip(self.examples, described, strict=False)
            if attention is not None
        }

    @tf.function(reduce_retracing=True)
    def _sample(self, batch: dict[str, tf.Tensor], number: tf.Tensor, samples: int) -> Decoded:
        """Plain samples, whatever the run's decoding is."""
        return sampling.sample(
            self.decoder.captioner.generator,
            self.decoder.captioner.regions(batch),
            DecodingOptions(self.sequence_length, samples),
            tf.stack([self.config.seed, 1000 * number]),
        )


def _variety(every: Sequence[Sequence[str]]) -> dict[str, float]:
    figures = {
        "distinct_captions": diversity.distinct_captions([captions[:1] for captions in every]),
        "distinct_2": diversity.distinct_n(every, 2),
        "vocabulary": diversity.vocabulary_size(every),
    }
    return {name: figure.value for name, figure in figures.items()}
