"""Captions of validation images during training: metrics, signs of collapse, pictures.

K samples per image.
"""

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
from caption_gan.metrics.quality import quality, why_cider_is_zero
from caption_gan.metrics.repetition import repeated_token_rate
from caption_gan.models.decoding import sampling
from caption_gan.models.decoding.decoder import Decoded, DecodingOptions
from caption_gan.models.decoding.text_decoder import TextDecoder
from caption_gan.reporting.pictures import attention_picture

# Enough to choose among epochs (the standard error of a share of one half is 0.022). Captioning
# them takes seconds per epoch; 5,000 would take half a minute.
VALIDATION_IMAGES = 500


class CaptionValidation:
    """Captions validation images and measures the captions.

    Args:
        decoder: Decodes the captions.
        pipeline: Makes the batches.
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
        count = max(VALIDATION_IMAGES, config.monitor.images, config.logging.images)
        self.examples: list[Example] = list(islice(read_examples(prepared), count))
        self.config = config
        self.fact_checker = build_fact_checker(config.data)

        size = config.decoding.batch_size
        images = pipeline.validation(prepared, size).unbatch()

        def first(count: int, batch_size: int) -> tf.data.Dataset:
            return images.take(count).batch(batch_size).cache()

        self.greedy_batches = first(VALIDATION_IMAGES, size)
        self.sample_batches = first(config.monitor.images, size)
        self.shown = min(config.logging.images, len(self.examples))
        self.picture_batches = first(self.shown, max(self.shown, 1))

    def greedy_metrics(self) -> dict[str, float]:
        """Returns metrics of greedy captions by name; prints a sign of collapse."""
        examples = self.examples[:VALIDATION_IMAGES]
        captions = [
            caption
            for batch in self.greedy_batches
            for ((caption, _),) in self.decoder.detokenize(self.decoder.greedy(batch))
        ]
        references = {example.image_id: example.captions for example in examples}
        scores = quality(dict(zip(references, captions, strict=True)), references)
        one_per_image = [[caption] for caption in captions]
        metrics: dict[str, Metric | DistinctCount] = {
            "CIDEr": scores["CIDEr"],
            "BLEU-4": scores["BLEU-4"],
            "repeated_token_rate": repeated_token_rate(one_per_image),
            "distinct_captions": diversity.distinct_captions(one_per_image),
        }
        if self.fact_checker:
            facts = [json.loads(example.facts) for example in examples]
            metrics["fact_accuracy"] = fact_accuracy(captions, facts, self.fact_checker)
        values = {name: metric.value for name, metric in metrics.items()}
        rate = {"repeated_token_rate": values["repeated_token_rate"]}
        if signs := out_of_bounds(rate, self.config.monitor):
            # tqdm.write prints above the progress bar.
            tqdm.write(f"signs of collapse: {signs[0]}", file=sys.stderr)
        return values

    def sample_metrics(self) -> dict[str, float]:
        """Returns metrics of sampled captions, by the names of their bounds in `MonitorConfig`.

        Metrics of diversity are divided by those of the references of the same images.
        """
        settings = self.config.monitor
        examples = self.examples[: settings.images]
        samples = [
            [caption for caption, _ in captions]
            for number, batch in enumerate(self.sample_batches)
            for captions in self.decoder.detokenize(
                self._sample(batch, tf.constant(number), settings.samples)
            )
        ]
        references = [list(example.captions[: settings.samples]) for example in examples]
        sample_diversity, reference_diversity = _diversity(samples), _diversity(references)
        metrics = {
            name: value / max(reference_diversity[name], 1e-9)
            for name, value in sample_diversity.items()
        }
        first = [captions[0] for captions in samples]
        metrics["repeated_token_rate"] = repeated_token_rate([[caption] for caption in first]).value
        metrics["mbleu"] = diversity.mbleu(samples)["mBLEU-4"].value
        targets = {str(number): captions for number, captions in enumerate(references)}
        matched, mismatched = (
            quality(dict(zip(targets, captions, strict=True)), targets)["CIDEr"].value
            for captions in (first, first[1:] + first[:1])
        )
        if not why_cider_is_zero(targets):
            metrics["image_dependence"] = image_dependence(matched, matched - mismatched)
        metrics["CIDEr"] = matched
        if self.fact_checker:
            facts = [
                json.loads(example.facts) for example in examples for _ in range(settings.samples)
            ]
            flat = [caption for captions in samples for caption in captions]
            metrics["fact_accuracy"] = fact_accuracy(flat, facts, self.fact_checker).value
        return metrics

    def pictures(self) -> dict[str, np.ndarray]:
        """Returns pictures of a few images with caption and attention, by image id."""
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
        """Samples K captions per image, at temperature 1 whatever the setting `decoding` is."""
        return sampling.sample(
            self.decoder.captioner.generator,
            self.decoder.captioner.regions(batch),
            DecodingOptions(self.sequence_length, samples),
            tf.stack([self.config.seed, 1000 * number]),
        )


def _diversity(captions: Sequence[Sequence[str]]) -> dict[str, float]:
    """Returns metrics of the diversity of captions, given those of each image."""
    metrics = {
        "distinct_captions": diversity.distinct_captions([image[:1] for image in captions]),
        "distinct_2": diversity.distinct_n(captions, 2),
        "vocabulary": diversity.vocabulary_size(captions),
    }
    return {name: metric.value for name, metric in metrics.items()}
