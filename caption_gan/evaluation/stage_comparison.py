"""What each stage of a run has reached: its greedy captions, and its frontier."""

from collections.abc import Sequence

import tensorflow as tf

from caption_gan.config.objectives import AdversarialConfig
from caption_gan.config.run import Config
from caption_gan.data.example import Example
from caption_gan.evaluation.frontier import Frontier, Points
from caption_gan.evaluation.split_metrics import score_facts
from caption_gan.evaluation.text_metrics import Scores, score_captions
from caption_gan.metrics.fact_accuracy import FactChecker
from caption_gan.models.critic import Critic, build_critic
from caption_gan.models.decoding.text_decoder import TextDecoder
from caption_gan.models.generators.gru import GRUGenerator
from caption_gan.run import RunDirectory, load_weights


def compare_stages(
    run: RunDirectory,
    config: Config,
    decoder: TextDecoder,
    batches: tf.data.Dataset,
    examples: Sequence[Example],
    is_true: FactChecker | None,
) -> tuple[Scores, dict[str, Points]]:
    """Scores the stages of a run beside each other.

    Args:
        run: Has weights of each stage.
        config: Its settings.
        decoder: Of the last stage's captioner.
        batches: Of the split.
        examples: Of the split, in the same order.
        is_true: Tells whether a caption is true of facts, for data that know them.

    Returns:
        Metrics of earlier stages' greedy captions by `<stage>/<metric>`, and the frontier: quality
        and variety after each stage, the last first, and by the critic's choice.
    """
    frontier = Frontier(batches, examples, is_true, config.decoding.samples, config.seed)
    *earlier, last = stages_of(run, config)
    scores = Scores()
    curves = {last: frontier.temperatures(decoder, last)}
    references = {example.image_id: example.captions for example in examples}
    for stage in reversed(earlier):
        captioner = decoder.captioner.copy()
        load_weights(captioner, run.stage_weights(stage))
        before = TextDecoder(captioner, decoder.tokenizer, config.decoding, config.seed)
        greedy = [
            caption
            for batch in batches
            for ((caption, _),) in before.detokenize(before.greedy(batch))
        ]
        captions = dict(zip(references, greedy, strict=True))
        scores.add(score_captions(captions, references, config.seed), f"{stage}/")
        scores.add(score_facts(greedy, examples, is_true), f"{stage}/")
        curves[stage] = frontier.temperatures(before, stage)
    if critic := load_critic(run, config, decoder.captioner.generator):
        curves["critic's choice"] = frontier.choices(decoder, critic)
    return scores, curves


def stages_of(run: RunDirectory, config: Config) -> list[str]:
    """Names of the stages that have left weights."""
    stages = [run.stage_name(config, number) for number in range(len(config.stages))]
    return [stage for stage in stages if run.stage_weights(stage).is_file()]


def load_critic(run: RunDirectory, config: Config, generator: GRUGenerator) -> Critic | None:
    """The critic that a run's last stage with one has left, if there is any."""
    if not run.critic_weights.is_file():
        return None
    settings = [getattr(config, stage) for stage in config.stages]
    adversarial = [some for some in settings if isinstance(some, AdversarialConfig)]
    critic = build_critic(generator, adversarial[-1].critic)
    load_weights(critic, run.critic_weights)
    return critic
