"""Compares the stages of one run: greedy captions and quality-diversity frontiers."""

from collections.abc import Sequence

import tensorflow as tf

from caption_gan.config.run import Config
from caption_gan.data.example import Example
from caption_gan.evaluation.frontier import Frontier, Points
from caption_gan.evaluation.split_metrics import score_facts
from caption_gan.evaluation.text_metrics import Scores, score_captions
from caption_gan.metrics.fact_accuracy import FactChecker
from caption_gan.models.critics.critic import Critic, build_critic
from caption_gan.models.decoding.text_decoder import TextDecoder
from caption_gan.models.generators.generator import Generator
from caption_gan.run import RunDirectory, load_weights


def compare_stages(
    run: RunDirectory,
    config: Config,
    decoder: TextDecoder,
    batches: tf.data.Dataset,
    examples: Sequence[Example],
    fact_checker: FactChecker | None,
) -> tuple[Scores, dict[str, Points]]:
    """Scores the captioners that the stages of a run ended with.

    Args:
        run: The run, with the weights of all stages.
        config: Settings of the run.
        decoder: Decoder of the last stage's captioner.
        batches: Batches of the split.
        examples: Examples of the split, in the same order.
        fact_checker: Returns whether a caption is correct, given the facts of its image; None if
            the data set has no facts.

    Returns:
        The metrics of the earlier stages' greedy captions by `<stage>/<metric>`, and the curves of
        the frontier by name: one for each stage, the last stage first, and one for samples that
        the critic reranks.
    """
    frontier = Frontier(batches, examples, fact_checker, config.decoding.samples, config.seed)
    *earlier, last = stages_of(run, config)
    scores = Scores()
    curves = {last: frontier.temperatures(decoder, last)}
    references = {example.image_id: example.captions for example in examples}
    for stage in reversed(earlier):
        captioner = decoder.captioner.copy()
        load_weights(captioner, run.stage_weights(stage))
        earlier_decoder = TextDecoder(captioner, decoder.tokenizer, config.decoding, config.seed)
        greedy = [
            caption
            for batch in batches
            for ((caption, _),) in earlier_decoder.detokenize(earlier_decoder.greedy(batch))
        ]
        captions = dict(zip(references, greedy, strict=True))
        scores.add(score_captions(captions, references, config.seed), f"{stage}/")
        scores.add(score_facts(greedy, examples, fact_checker), f"{stage}/")
        curves[stage] = frontier.temperatures(earlier_decoder, stage)
    if critic := load_critic(run, config, decoder.captioner.generator):
        curves["critic's choice"] = frontier.reranked(decoder, critic)
    return scores, curves


def stages_of(run: RunDirectory, config: Config) -> list[str]:
    """Names of the stages whose weights the run has."""
    stages = [run.stage_name(config, number) for number in range(len(config.stages))]
    return [stage for stage in stages if run.stage_weights(stage).is_file()]


def load_critic(run: RunDirectory, config: Config, generator: Generator) -> Critic | None:
    """The critic of the last adversarial stage; None if the run has none."""
    if not run.critic_weights.is_file():
        return None
    settings = [config.objective(stage) for stage in config.stages]
    last = [stage for stage in settings if stage.has_critic][-1]
    critic = build_critic(last.critic, generator)
    load_weights(critic, run.critic_weights)
    return critic
