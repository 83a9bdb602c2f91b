"""One stage of a run: an objective trains the captioner for some epochs."""

import sys
from pathlib import Path
from typing import Any, NoReturn

import keras
import tensorflow as tf

from caption_gan.config.objective_config import ObjectiveConfig
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
from caption_gan.models.dual_encoders.saved_model import DualEncoder
from caption_gan.models.encoders.encoder import Encoder
from caption_gan.run import RunDirectory, load_weights, save_weights
from caption_gan.settings import differences
from caption_gan.training import callbacks
from caption_gan.training.checkpoints import TrainingCheckpoint
from caption_gan.training.collapse_monitor import CollapseMonitor
from caption_gan.training.interruption import Interruption
from caption_gan.training.loop import train
from caption_gan.training.objectives.trainer import Trainer
from caption_gan.training.recording import (
    record_size,
    recording_callbacks,
    tensorboard_scalars,
)
from caption_gan.training.rewards.dual_encoder import DualEncoderReward
from caption_gan.training.validation import CaptionValidation

Splits = dict[str, PreparedSplit]


def train_stage(
    run: RunDirectory,
    config: Config,
    number: int,
    captioner: Captioner,
    pipeline: Pipeline,
    splits: Splits,
) -> None:
    """Trains the captioner by one objective, from where an interrupted run left it.

    Args:
        run: Receives checkpoints, curves and logs.
        config: Settings of the run.
        number: Position of the stage in `config.stages`.
        captioner: The network to train; it starts from the best weights of the stage before.
        pipeline: Makes the batches.
        splits: `train` and `val`.

    Raises:
        CaptionGANError: A loss or gradient is not finite, or the captions collapsed.
    """
    objective, name = config.stages[number], run.stage_name(config, number)
    settings = config.objective(objective)
    trainer = build_trainer(run, config, number, captioner, pipeline, splits)
    decoder = TextDecoder(trainer.kept_captioner, pipeline.tokenizer, config.decoding, config.seed)
    validation = CaptionValidation(decoder, pipeline, splits["val"], config)
    collapse = collapse_monitor(run.logs / name, config, trainer, validation)

    variables = trainer.checkpoint_variables
    variables["collapse_monitor"] = collapse.state if collapse else []
    checkpoint = TrainingCheckpoint(
        run.stage_checkpoints(config, number), variables, config.checkpoint_minutes
    )
    with strategies.chief_first():
        done = checkpoint.restore()
    changed = {name for name, _, _ in differences(run.read_config(), config)} - {"run_dir"}
    if strategies.is_chief() and changed:
        # The user asked for the changes, and the restored state fits them.
        run.write_config(config)
    if done.epochs >= settings.epochs:
        return

    recording = recording_callbacks(run, config, name, trainer, validation, checkpoint)
    chief = strategies.is_chief()
    if chief:
        record_size(run, name, trainer)
    save = checkpoint.save_within_epoch if chief else lambda: None
    try:
        with monitored_service(config.data.service), Interruption(save) as interruption:
            train(
                trainer,
                training_batches(config, number, pipeline, splits["train"]),
                pipeline.validation(splits["val"], settings.batch_size),
                settings.epochs,
                # In this order: the first ones add metrics that later ones read, everything an
                # epoch leaves is on disk when it counts as done, and an interruption ends a whole
                # epoch.
                [
                    *unfreezing(config, settings, trainer.captioner),
                    callbacks.StopOnNonFinite(_stop_invalid),
                    callbacks.CaptionMetrics(
                        lambda: strategies.from_chief(validation.greedy_metrics)
                    ),
                    *([collapse] if collapse else []),
                    *(recording if chief else []),
                    interruption,
                ],
                done,
            )
    except KeyboardInterrupt:
        if chief and not run.best_weights.exists():
            save_weights(trainer.kept_captioner, run.best_weights)
        raise
    strategies.wait_for_all()
    if run.kept_weights(config, number + 1) is None:
        _stop_collapsed("no epoch was healthy")
    if not run.stage_weights(name).exists():
        print(f"{objective}: no epoch was healthy; none is kept", file=sys.stderr)


def build_trainer(
    run: RunDirectory,
    config: Config,
    number: int,
    captioner: Captioner,
    pipeline: Pipeline,
    splits: Splits,
) -> Trainer:
    """The compiled trainer of a stage; arguments as of `train_stage`."""
    objective = config.stages[number]
    settings = config.objective(objective)
    # Seed initialisation per stage, so that a resumed run builds the same weights.
    keras.utils.set_random_seed(config.seed + 1 + number)
    if weights := run.kept_weights(config, number):
        load_weights(captioner, weights)
    # Word vectors that are unfrozen later need a place in the optimizer from the start.
    captioner.generator.embedding.trainable = config.text.trains_word_vectors
    captioner = captioner.with_lora(settings.lora_rank)
    data: dict[str, Any] = {}
    if settings.has_rewards:
        data["references"] = (captions[:, 1:] for captions in pipeline.references(splits["train"]))
    if reads_corpora(config, objective):
        data["reads_corpora"] = True
    if settings.dual_encoder_path is not None:
        dual_encoder = DualEncoder(Path(settings.dual_encoder_path))
        data["dual_encoder"] = DualEncoderReward(dual_encoder, pipeline.tokenizer)
    return settings.load_trainer().from_config(
        captioner,
        settings,
        steps_per_epoch(config, objective, splits["train"].images, captioner.encoder)
        * settings.epochs,
        config.seed + number,
        steps_per_execution=config.steps_per_execution,
        jit_compile=config.jit_compile,
        **data,
    )


def reads_corpora(config: Config, objective: str) -> bool:
    """Whether an objective reads sentences of `data.corpora`."""
    return bool(config.data.corpora and config.objective(objective).sentences_per_caption)


def steps_per_epoch(config: Config, objective: str, images: int, encoder: Encoder) -> int:
    """Steps of an objective in a pass over so many training images.

    Raises:
        CaptionGANError: There are too few steps to train, or the batch does not fit the devices.
    """
    settings = config.objective(objective)
    steps = images // settings.images_per_step
    if not steps:
        raise CaptionGANError(
            f"A step of {objective} takes {settings.images_per_step} images, but there are only "
            f"{images} training images; give a smaller {objective}.batch_size."
        )
    if settings.batch_size % replicas.count():
        raise CaptionGANError(
            f"{objective}.batch_size is {settings.batch_size}, which cannot be divided among "
            f"{replicas.count()} devices; choose a multiple of their number."
        )
    if settings.accumulation_steps > settings.batch_size // replicas.count():
        raise CaptionGANError(
            f"{objective}.accumulation_steps is {settings.accumulation_steps}, but a device has "
            f"only {settings.batch_size // replicas.count()} images of a batch; lower it."
        )
    if (
        settings.accumulation_steps > 1
        and settings.trains_encoder
        and encoder.normalizes_over_batch
    ):
        raise CaptionGANError(
            f"{objective}.accumulation_steps is {settings.accumulation_steps}, but must be 1 with "
            f"encoder.name {config.encoder.name}, which normalises over the whole batch at once."
        )
    if settings.sorts_by_length and replicas.several() and encoder.normalizes_over_batch:
        raise CaptionGANError(
            f"{objective}.length_buckets is {settings.length_buckets}, but must be 1 on several "
            f"devices with encoder.name {config.encoder.name}, which normalises over all of them "
            "at once."
        )
    total = steps * settings.epochs
    if settings.generator_warmup_steps >= total:
        raise CaptionGANError(
            f"{objective}.critic_warmup_steps is {settings.critic_warmup_steps}, but there are "
            f"only {total} steps, so the generator would never be trained; lower it, raise "
            f"{objective}.epochs or lower {objective}.batch_size."
        )
    return steps


def training_batches(
    config: Config, number: int, pipeline: Pipeline, train_split: PreparedSplit
) -> tf.data.Dataset:
    """An epoch of a stage's batches, with sentences of `data.corpora` if it reads them."""
    objective = config.stages[number]
    settings, seed = config.objective(objective), config.seed + number
    batches = pipeline.training(
        train_split, settings.images_per_step, settings.captions, seed, settings.sorts_by_length
    )
    if not reads_corpora(config, objective):
        return batches
    skips = Skips()
    sentences = tokenize_corpora(
        config.data.corpora, pipeline.tokenizer, skips, config.data.encoding
    )
    for line in [f"{len(sentences)} sentences of data.corpora are used", *skips.lines()]:
        print(f"{objective}: {line}", file=sys.stderr)
    return pipeline.with_corpus(batches, sentences, settings.captions, seed)


def collapse_monitor(
    logs: Path, config: Config, trainer: Trainer, validation: CaptionValidation
) -> CollapseMonitor | None:
    """Watches samples for signs of collapse, for objectives that train on samples."""
    if not trainer.config.watches_for_collapse:
        return None
    return CollapseMonitor(
        lambda: strategies.from_chief(validation.sample_metrics),
        config.monitor,
        trainer.trained_state,
        tensorboard_scalars(logs / "health"),
        _stop_collapsed,
    )


def unfreezing(
    config: Config, settings: ObjectiveConfig, captioner: Captioner
) -> list[keras.callbacks.Callback]:
    """Freezes pretrained word vectors and layers of the encoder for some epochs."""
    found: list[keras.callbacks.Callback] = []
    text = config.text
    is_late = text.word_vectors is not None and text.word_vectors_policy == "unfrozen"
    if is_late and not settings.lora_rank:
        embedding = captioner.generator.embedding
        found.append(callbacks.Unfreeze(embedding, text.unfreeze_after_epochs))
    if settings.epochs_with_frozen_encoder:
        layers = captioner.encoder.fine_tuned
        found.append(callbacks.Unfreeze(layers, settings.epochs_with_frozen_encoder))
    return found


def _stop_invalid(reason: str) -> NoReturn:
    raise CaptionGANError(
        f"Training stopped: {reason}. Weights that were kept before stay. Try a lower learning "
        "rate."
    )


def _stop_collapsed(reason: str) -> NoReturn:
    raise CaptionGANError(
        f"Training stopped: {reason}. Healthy weights that were kept before stay. Begin with "
        "maximum_likelihood, raise mle_weight or lower the learning rate."
    )
