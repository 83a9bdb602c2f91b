"""Compares the stages of one run: captions, and quality-diversity frontiers."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf

from caption_gan.config.run import Config
from caption_gan.data.example import CaptionedImage
from caption_gan.evaluation.frontier import Captions, Frontier, Points
from caption_gan.evaluation.split_metrics import score_decoding
from caption_gan.evaluation.text_metrics import Scores
from caption_gan.metrics.fact_accuracy import FactChecker
from caption_gan.models.critics.critic import Critic, build_critic
from caption_gan.models.decoding.text_decoder import TextDecoder
from caption_gan.models.generators.generator import Generator
from caption_gan.reporting.report import StageSamples
from caption_gan.run import RunDirectory, load_weights

IMAGES_SHOWN = 8  # With the samples of all stages, in the report.


@dataclasses.dataclass
class StageComparison:
    """What the stages of a run have in common and what not.

    Attributes:
        scores: Metrics by `<stage>/<metric>` of the greedy captions and `<stage>, sample/<metric>`
            of the samples at temperature 1 of all stages but the last.
        curves: Points of the frontier by name of the curve: two for each stage, over temperatures
            and over nuclei, the last stage first.
        samples: The samples of each stage at temperature 1, the first stage first.
    """

    scores: Scores = dataclasses.field(default_factory=Scores)
    curves: dict[str, Points] = dataclasses.field(default_factory=dict)
    samples: dict[str, Captions] = dataclasses.field(default_factory=dict)


def compare_stages(
    run: RunDirectory,
    config: Config,
    decoder: TextDecoder,
    frontier: Frontier,
    fact_checker: FactChecker | None,
) -> StageComparison:
    """Scores the captioners that the stages of a run ended with.

    Args:
        run: The run, with the weights of all stages.
        config: Settings of the run.
        decoder: Decoder of the last stage's captioner.
        frontier: Images of the split; draws and scores samples.
        fact_checker: Returns whether a caption is correct, given the facts of its image; None if
            the data set has no facts.
    """
    # An interrupted run may not have finished any stage.
    *earlier, last = stages_of(run, config) or [run.stage_name(config, 0)]
    comparison = StageComparison()
    for stage in (last, *reversed(earlier)):
        of_stage = decoder
        if stage != last:
            captioner = decoder.captioner.copy()
            load_weights(captioner, run.stage_weights(stage))
            of_stage = TextDecoder(captioner, decoder.tokenizer, config.decoding, config.seed)
        temperatures = frontier.temperatures(of_stage, stage)
        comparison.curves |= frontier.curves(stage, temperatures, frontier.nuclei(of_stage, stage))
        samples = temperatures[1.0]
        comparison.samples = {stage: samples, **comparison.samples}
        if stage != last:
            greedy = greedy_captions(of_stage, frontier.batches)
            for name, captions in ((stage, greedy), (f"{stage}, sample", samples)):
                scores = score_decoding(
                    captions, frontier.examples, config.seed, fact_checker, java=False
                )
                comparison.scores.add(scores, f"{name}/")
    return comparison


def stage_samples(
    images: Sequence[CaptionedImage], samples: Mapping[str, Captions], frontier: Frontier
) -> list[StageSamples]:
    """Samples of all stages for a few images, evenly spaced; none of a single stage."""
    if len(samples) < 2:
        return []
    count = min(IMAGES_SHOWN, len(images))
    places = np.linspace(0, len(images) - 1, count).round().astype(int)
    return [
        StageSamples(
            images[place],
            {
                stage: [
                    (text, frontier.is_correct(place, text) if frontier.is_correct else None)
                    for text in captions[place]
                ]
                for stage, captions in samples.items()
            },
        )
        for place in places
    ]


def greedy_captions(decoder: TextDecoder, batches: tf.data.Dataset) -> Captions:
    """The greedy caption of each image, in a list of its own."""
    return [
        [caption for caption, _ in of_image]
        for batch in batches
        for of_image in decoder.detokenize(decoder.greedy(batch))
    ]


def stages_of(run: RunDirectory, config: Config) -> list[str]:
    """Names of the stages whose weights the run has."""
    stages = [run.stage_name(config, number) for number in range(len(config.stages))]
    return [stage for stage in stages if run.stage_weights(stage).is_file()]


def load_critic(run: RunDirectory, config: Config, generator: Generator) -> Critic | None:
    """The critic of the last adversarial stage; None if the run has none."""
    settings = [config.objective(stage) for stage in config.stages]
    with_critic = [stage for stage in settings if stage.has_critic]
    # Weights may be left of a stage that the run was continued without.
    if not with_critic or not run.critic_weights.is_file():
        return None
    critic = build_critic(with_critic[-1].critic, generator)
    load_weights(critic, run.critic_weights)
    return critic
