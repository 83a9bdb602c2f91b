"""Metrics of a captioned split: of its texts, by facts, by image retrieval, against training."""

import json
from collections.abc import Sequence

from caption_gan.config.run import Config
from caption_gan.data.example import CaptionedImage, Example
from caption_gan.evaluation.text_metrics import (
    Scores,
    collapse_metrics,
    novelty,
    sample_diversity,
    score_captions,
)
from caption_gan.metrics.fact_accuracy import FactChecker, fact_accuracy
from caption_gan.metrics.grounding import retrieval
from caption_gan.metrics.quality import per_image_cider
from caption_gan.models.dual_encoders.saved_model import DualEncoder


def score_images(
    images: Sequence[CaptionedImage],
    config: Config,
    fact_checker: FactChecker | None,
    training: Sequence[str] | None,
    dual_encoder: DualEncoder | None = None,
) -> Scores:
    """Scores captioned images; also sets `cider` and `is_correct` of each.

    Args:
        images: Captioned images of the split.
        config: Settings of the run.
        fact_checker: Returns whether a caption is correct, given the facts of its image; None if
            the data set has no facts.
        training: Captions of the training split; None if they are not available.
        dual_encoder: For the retrieval metrics; None leaves them out.

    Returns:
        Metrics by `<decoding>/<metric>`. Quality is that of one caption per image: the best of a
        beam, the first of the samples.
    """
    examples = [image.example for image in images]
    references = {example.image_id: example.captions for example in examples}
    retrieval_scorer = RetrievalScorer(dual_encoder, examples)
    scores = Scores()
    for name in images[0].captions:
        captions = [[caption for caption, _ in image.captions[name]] for image in images]
        scores.add(score_decoding(captions, examples, config.seed, fact_checker), f"{name}/")
        scores.add(retrieval_scorer.score([of_image[0] for of_image in captions]), f"{name}/")
        if training is None:
            reason = "the training split is not prepared here"
            scores.not_run |= {f"{name}/novel_captions": reason, f"{name}/novel_5-grams": reason}
        else:
            scores.add(Scores(novelty(captions, training)), f"{name}/")
    first_references = [[example.captions[0]] for example in examples]
    scores.add(Scores(collapse_metrics(first_references)), "reference/")

    greedy = {image.example.image_id: image.captions["greedy"][0][0] for image in images}
    cider = per_image_cider(greedy, references)
    for image in images:
        image.cider = cider[image.example.image_id]
        if fact_checker:
            facts = json.loads(image.example.facts)
            image.is_correct = fact_checker(greedy[image.example.image_id], facts)
    return scores


def score_decoding(
    captions: Sequence[Sequence[str]],
    examples: Sequence[Example],
    seed: int,
    fact_checker: FactChecker | None,
    java: bool = True,
) -> Scores:
    """Quality of the first caption of each image and, if there are several, their diversity.

    Args:
        captions: Captions of each image, one or several.
        examples: The images.
        seed: Seed of the swap of captions for `CIDEr_drop`.
        fact_checker: Adds `fact_accuracy`; None if the data set has no facts.
        java: Whether to compute METEOR and SPICE, which take long.
    """
    references = {example.image_id: example.captions for example in examples}
    first = [of_image[0] for of_image in captions]
    scores = score_captions(dict(zip(references, first, strict=True)), references, seed, java)
    if fact_checker:
        facts = [json.loads(example.facts) for example in examples]
        scores.add(Scores({"fact_accuracy": fact_accuracy(first, facts, fact_checker)}))
    if len(captions[0]) > 1:
        scores.add(Scores(sample_diversity(captions)))
    return scores


class RetrievalScorer:
    """Scores whether captions retrieve their images, by a dual encoder such as CLIP.

    Args:
        encoder: The dual encoder; None for no metrics.
        examples: The images.
    """

    def __init__(self, encoder: DualEncoder | None, examples: Sequence[Example]):
        self.encoder = encoder
        if self.encoder:
            self.embeddings = self.encoder.embed_images([example.image for example in examples])

    def score(self, captions: Sequence[str]) -> Scores:
        """Retrieval metrics of one caption per image; none without a dual encoder."""
        if self.encoder is None:
            return Scores()
        return Scores({**retrieval(self.embeddings, self.encoder.embed_texts(captions))})
