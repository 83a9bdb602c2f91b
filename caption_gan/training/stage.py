"""One stage of a run: an objective trains the captioner for some epochs."""

import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

import keras
import tensorflow as tf

from caption_gan.config.objectives import AdversarialConfig
from caption_gan.config.run import Config
from caption_gan.data.corpora import tokenize_corpora
from caption_gan.data.pipeline import Pipeline
from caption_gan.data.service.client import monitored_service
from caption_gan.data.shards.files import PreparedSplit
from caption_gan.data.skips import Skips
from caption_gan.distribution import replicas, strategies
from caption_gan.errors import CaptionGANError
from caption_gan.models.captioner import Captioner
from caption_gan.models.decoding.text_decoder import TextDecoder
from caption_gan.run import RunDirectory, load_weights, save_weights
from caption_gan.storage.atomic import replacing, write_json
from caption_gan.training import callbacks
from caption_gan.training.averaging import RunningAverage
from caption_gan.training.checkpoints import TrainingCheckpoint
from caption_gan.training.collapse_monitor import CollapseMonitor
from caption_gan.training.interruption import Interruption
from caption_gan.training.loop import train
from caption_gan.training.objectives.maximum_likelihood import MaximumLikelihood
from caption_gan.training.objectives.policy_gradient import PolicyGradient
from caption_gan.training.objectives.self_critical import SelfCritical
from caption_gan.training.objectives.wgan_gp import WassersteinGAN
from caption_gan.training.rewards.cider import CiderReward
from caption_gan.training.validation import Monitor

OBJECTIVES: dict[str, Any] = {
    "maximum_likelihood": MaximumLikelihood,
    "wgan_gp": WassersteinGAN,
    "policy_gradient": PolicyGradient,
    "self_critical": SelfCritical,
}


def steps_an_epoch(config: Config, objective: str, images: int) -> int:
    """Steps in which an objective sees so many training images.

    Raises:
        CaptionGANError: They are too few to train with.
    """
    settings = getattr(config, objective)
    steps = images // settings.images_a_step
    if not steps:
        raise CaptionGANError(
            f"A step of {objective} takes {settings.images_a_step} images, but there are only "
            f"{images} training images; give a smaller {objective}.batch_size."
        )
    if settings.batch_size % replicas.count():
        raise CaptionGANError(
            f"{objective}.batch_size is {settings.batch_size}, which cannot be divided among "
            f"{replicas.count()} devices; choose a multiple of their number."
        )
    by_length = getattr(settings, "lengths", 1) > 1
    if by_length and replicas.several() and config.encoder.name == "convolutional":
        raise CaptionGANError(
            f"{objective}.lengths is {settings.lengths}, but must be 1 on several devices with the "
            "convolutional encoder, which normalises over all of them at the same time."
        )
    total = steps * settings.epochs
    if isinstance(settings, AdversarialConfig) and settings.critic_steps >= total:
        raise CaptionGANError(
            f"{objective}.critic_warmup is {settings.critic_warmup}, but there are only {total} "
            "steps, so that the generator would not be trained; lower it, raise "
            f"{objective}.epochs or lower {objective}.batch_size."
        )
    return steps


def train_stage(
    run: RunDirectory,
    config: Config,
    number: int,
    captioner: Captioner,
    pipeline: Pipeline,
    splits: dict[str, PreparedSplit],
) -> None:
    """Trains the captioner by one objective, from where an interrupted run left it.

    Args:
        run: Gets checkpoints, curves and logs.
        config: Settings of the run.
        number: Position of the stage in `config.stages`.
        captioner: Is trained, from the best weights of the stage before.
        pipeline: Gives batches.
        splits: `train` and `val`.

    Raises:
        CaptionGANError: A loss or a gradient is no longer a number, or the captions collapsed.
    """
    objective = config.stages[number]
    name = run.stage_name(config, number)
    settings = getattr(config, objective)
    steps = steps_an_epoch(config, objective, splits["train"].images)
    # What is random in the building follows from the stage, and not from what was done before it.
    keras.utils.set_random_seed(config.seed + 1 + number)
    if before := run.kept_weights(config, number):
        load_weights(captioner, before)
    # An optimizer is built with all that it may have to train later.
    captioner.generator.embedding.trainable = True
    rewards = {}
    if objective == "self_critical":
        references = (captions[:, 1:] for captions in pipeline.references(splits["train"]))
        rewards["cider"] = CiderReward(references)
    model = OBJECTIVES[objective].stage(
        captioner, settings, steps * settings.epochs, config.seed + number, **rewards
    )
    model.steps_a_call = config.steps_per_execution
    model.xla = config.jit_compile
    others: list[keras.Variable] = []
    kept = captioner  # What is kept also writes the captions that are scored.
    if settings.averaging:
        kept = captioner.copy()
        others = kept.weights
        model.after_step = RunningAverage(captioner.weights, others, settings.averaging).update
    if isinstance(settings, AdversarialConfig):
        others = [*others, *model.critic_optimizer.variables]
    monitor = Monitor(
        TextDecoder(kept, pipeline.tokenizer, config.decoding, config.seed),
        *(pipeline, splits["val"], config),
    )
    # Truth, where it is known; else likeness to what people say.
    watched, watching = "val_CIDEr", []
    if monitor.is_true:
        watched = "val_fact_accuracy"
    logs = run.logs / name
    if isinstance(settings, AdversarialConfig):
        if monitor.is_true:
            # What this training is for shows in what is drawn, not in what is likeliest.
            watched = "val_sample_fact_accuracy"
        # Weights, which random states are no part of: the same noise would lead to the same end.
        variables = [*model.weights, *model.optimizer.variables, *others]
        collapse = CollapseMonitor(
            lambda: strategies.from_chief(monitor.health),
            *(config.monitor, variables, _log(logs), _collapsed),
        )
        watching, others = [collapse], [*others, *collapse.state]
    continuation = TrainingCheckpoint(
        run.stage_checkpoints(config, number), model, others, config.checkpoint_minutes
    )
    with strategies.chief_first():
        done = continuation.restore()
    if strategies.is_chief() and run.changes(config):
        # They were asked for, and what is restored fits them.
        run.write_config(config)
    if done.epochs >= settings.epochs:
        return

    history = run.read_history()
    epochs = history.setdefault(name, [])
    del epochs[done.epochs :]

    def keep() -> None:
        save_weights(kept, run.best_weights)
        with replacing(run.stage_weights(name)) as temporary:
            shutil.copyfile(run.best_weights, temporary)
        if critic := getattr(model, "critic", None):
            save_weights(critic, run.critic_weights)

    by_length = getattr(settings, "lengths", 1) > 1
    batches = pipeline.training(
        *(splits["train"], settings.images_a_step, settings.captions, config.seed + number),
        by_length,
    )
    if getattr(model, "critic", None) and config.data.corpora and settings.unpaired:
        skips = Skips()
        sentences = tokenize_corpora(config.data.corpora, pipeline.tokenizer, skips)
        for line in [f"{len(sentences)} sentences of data.corpora are used", *skips.lines()]:
            print(f"{objective}: {line}", file=sys.stderr)
        batches = pipeline.with_unpaired(
            batches, sentences, settings.captions, config.seed + number
        )
    # In this order: the first ones add figures that the later ones read, all that an epoch leaves
    # is on disk when it counts as done, and an interruption ends an epoch that is whole.
    recording = [
        callbacks.History(epochs, lambda: write_json(run.history, history)),
        callbacks.SaveBest(keep, watched, epochs),
        *_sample_captions(monitor, logs),
        keras.callbacks.TensorBoard(
            log_dir=logs,
            histogram_freq=int(config.logging.histograms),
            write_graph=False,
            profile_batch=_profiled_steps(config),
        ),
        continuation,
        callbacks.Progress(objective),
    ]
    chief = strategies.is_chief()
    save = continuation.save_within_epoch if chief else lambda: None
    try:
        with monitored_service(config.data.service), Interruption(save) as interruption:
            train(
                model,
                batches,
                pipeline.validation(splits["val"], settings.batch_size),
                settings.epochs,
                [
                    *_word_vector_policy(config, captioner),
                    callbacks.StopOnNonFinite(_fail),
                    callbacks.CaptionMetrics(lambda: strategies.from_chief(monitor.quality)),
                    *watching,
                    *(recording if chief else []),
                    interruption,
                ],
                done,
            )
    except KeyboardInterrupt:
        if chief and not run.best_weights.exists():
            save_weights(kept, run.best_weights)
        raise
    strategies.wait_for_all()
    if run.kept_weights(config, number + 1) is None:
        _collapsed("no epoch was healthy")
    if not run.stage_weights(name).exists():
        print(f"{objective}: no epoch was healthy; none is kept", file=sys.stderr)


def _fail(reason: str) -> NoReturn:
    raise CaptionGANError(
        f"Training stopped: {reason}. What was kept before stays. Try a lower learning rate."
    )


def _collapsed(reason: str) -> NoReturn:
    raise CaptionGANError(
        f"Training stopped: {reason}. Healthy weights that were kept before stay. Begin with "
        "maximum_likelihood, raise the anchor's weight or lower the learning rate."
    )


def _log(logs: Path) -> Callable[[Mapping[str, float], int], None]:
    """Writes figures for TensorBoard."""
    if not strategies.is_chief():
        return lambda figures, step: None
    writer = tf.summary.create_file_writer(str(logs / "health"))

    def log(figures: Mapping[str, float], step: int) -> None:
        with writer.as_default():
            for name, value in figures.items():
                tf.summary.scalar(f"health/{name}", value, step=step)
        writer.flush()

    return log


def _profiled_steps(config: Config) -> tuple[int, int] | int:
    if config.profile_steps is None:
        return 0
    first, last = map(int, config.profile_steps.split(","))
    return first, last


def _word_vector_policy(config: Config, captioner: Captioner) -> list[keras.callbacks.Callback]:
    """Freezes pretrained word vectors, for good or for some epochs."""
    policy = config.text.word_vectors_policy
    if config.text.word_vectors is None or policy == "trainable":
        return []
    epochs = config.text.unfreeze_after_epochs if policy == "unfrozen" else sys.maxsize
    return [callbacks.UnfreezeEmbeddings(captioner.generator.embedding, epochs)]


def _sample_captions(monitor: Monitor, logs: Path) -> list[keras.callbacks.Callback]:
    return [callbacks.SampleCaptions(logs, monitor.pictures)] if monitor.shown else []
