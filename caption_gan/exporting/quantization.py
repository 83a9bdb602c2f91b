"""What a captioner loses where its weights are stored in fewer bytes."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from caption_gan import signature
from caption_gan.data.example import Example
from caption_gan.data.shards.prepare import prepare_splits
from caption_gan.data.shards.records import read_examples
from caption_gan.evaluation.saved_models import without_cached_regions
from caption_gan.exporting.served_captioner import ServedCaptioner
from caption_gan.exporting.small_weights import SmallKind, SmallWeights
from caption_gan.metrics.quality import quality
from caption_gan.models.encoders.encoder import build_encoder

BATCH = 32


@dataclasses.dataclass(frozen=True)
class Rounding:
    """Figures of weights before and after they were rounded.

    Attributes:
        weights: What they are stored as.
        cider: Of greedy captions of the validation split.
        cider_before: With float32 weights.
        megabytes: Of the weights.
        megabytes_before: As float32.
    """

    weights: SmallKind
    cider: float
    cider_before: float
    megabytes: float
    megabytes_before: float

    def line(self) -> str:
        """What people read."""
        return (
            f"weights as {self.weights}: {self.megabytes:.1f} MB, as float32 "
            f"{self.megabytes_before:.1f}; CIDEr of greedy captions of val {self.cider:.4f}, "
            f"as float32 {self.cider_before:.4f} ({self.cider - self.cider_before:+.4f})"
        )


def round_weights(served: ServedCaptioner, kind: SmallKind) -> Rounding:
    """Rounds a captioner's weights for its export, and measures what it loses.

    Raises:
        CaptionGANError: The run's data set is not there.
    """
    config = without_cached_regions(served.config)
    prepared = prepare_splits(config, build_encoder(config.encoder), ["val"])["val"]
    examples = list(read_examples(prepared))
    before = greedy_cider(served, examples)
    large = sum(np.array(variable).nbytes for variable in served.captioner.variables)
    served.small = SmallWeights(served.captioner, kind)
    small = sum(weight.size() for weight in served.small.weights())
    return Rounding(kind, greedy_cider(served, examples), before, small / 1e6, large / 1e6)


def greedy_cider(served: ServedCaptioner, examples: Sequence[Example]) -> float:
    """CIDEr of the default captions of images, which are read as a server reads them."""
    caption = tf.function(served.default, reduce_retracing=True)
    captions: dict[str, str] = {}
    for start in range(0, len(examples), BATCH):
        some = examples[start : start + BATCH]
        written = caption(tf.constant([example.image for example in some]))[signature.CAPTION]
        for example, text in zip(some, written.numpy(), strict=True):
            captions[example.image_id] = text.decode()
    references = {example.image_id: example.captions for example in examples}
    return quality(captions, references)["CIDEr"].value
