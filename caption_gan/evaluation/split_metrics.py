"""Metrics of captioned images: of their captions, of their truth, and of finding them again."""

import json
from collections.abc import Sequence
from pathlib import Path

from caption_gan.config.run import Config
from caption_gan.data.example import Example
from caption_gan.evaluation.captioning import CaptionedImage
from caption_gan.evaluation.text_metrics import (
    Scores,
    collapse_metrics,
    novelty,
    score_captions,
    variety,
)
from caption_gan.metrics.fact_accuracy import FactChecker, fact_accuracy
from caption_gan.metrics.grounding import retrieval
from caption_gan.metrics.quality import per_image_cider
from caption_gan.models.dual_encoder import DualEncoder


def score_images(
    images: Sequence[CaptionedImage],
    config: Config,
    is_true: FactChecker | None,
    training: Sequence[str] | None,
) -> Scores:
    """Scores captioned images, and notes CIDEr and truth of each.

    Args:
        images: What was said; `cider` and `is_true` are filled in.
        config: Settings.
        is_true: Tells whether a caption is true of facts, for data that know them.
        training: Captions of the training split, where they are at hand.

    Returns:
        Metrics by `<decoding>/<metric>`. Those of quality are of one caption an image: the best of
        a beam, the first of the samples.
    """
    examples = [image.example for image in images]
    references = {example.image_id: example.captions for example in examples}
    finding = Retrieval(config.evaluation.dual_encoder, examples)
    scores = Scores()
    for name in images[0].captions:
        every = [[caption for caption, _ in image.captions[name]] for image in images]
        first = [captions[0] for captions in every]
        by_id = dict(zip(references, first, strict=True))
        scores.add(score_captions(by_id, references, config.seed), f"{name}/")
        scores.add(score_facts(first, examples, is_true), f"{name}/")
        scores.add(finding.score(first), f"{name}/")
        if len(every[0]) > 1:
            scores.add(Scores(variety(every)), f"{name}/")
        if training is None:
            reason = "the training split is not prepared here"
            scores.not_run |= {f"{name}/novel_captions": reason, f"{name}/novel_5-grams": reason}
        else:
            scores.add(Scores(novelty(every, training)), f"{name}/")
    of_people = [[example.captions[0]] for example in examples]
    scores.add(Scores(collapse_metrics(of_people)), "reference/")

    greedy = {image.example.image_id: image.captions["greedy"][0][0] for image in images}
    cider = per_image_cider(greedy, references)
    for image in images:
        image.cider = cider[image.example.image_id]
        if is_true:
            image.is_true = is_true(greedy[image.example.image_id], json.loads(image.example.facts))
    return scores


def score_facts(
    captions: Sequence[str], examples: Sequence[Example], is_true: FactChecker | None
) -> Scores:
    """`fact_accuracy` of one caption an image, where truth is known."""
    if is_true is None:
        return Scores()
    facts = [json.loads(example.facts) for example in examples]
    return Scores({"fact_accuracy": fact_accuracy(captions, facts, is_true)})


class Retrieval:
    """Whether captions find their images, as far as a dual encoder can tell.

    Args:
        path: The encoder's SavedModel; None for no metrics.
        examples: The images.

    Raises:
        CaptionGANError: There is no such encoder.
    """

    def __init__(self, path: str | None, examples: Sequence[Example]):
        self.encoder = DualEncoder(Path(path)) if path else None
        if self.encoder:
            self.images = self.encoder.embed_images([example.image for example in examples])

    def score(self, captions: Sequence[str]) -> Scores:
        """Metrics of one caption an image."""
        if self.encoder is None:
            return Scores()
        return Scores({**retrieval(self.images, self.encoder.embed_texts(captions))})
