"""One stage of a run: an objective trains the captioner for some epochs."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import keras
import numpy as np

from caption_gan.config import Config
from caption_gan.data.example import Example
from caption_gan.data.pipeline import Pipeline
from caption_gan.data.sources import truth_checker
from caption_gan.errors import CaptionGANError
from caption_gan.evaluation import Decoder, score_captions
from caption_gan.files import write_json
from caption_gan.models.captioner import Captioner
from caption_gan.pictures import attention_picture
from caption_gan.preparation import PreparedSplit
from caption_gan.run import RunDirectory, save_weights
from caption_gan.training import callbacks
from caption_gan.training.averaging import RunningAverage
from caption_gan.training.interruption import Interruption
from caption_gan.training.maximum_likelihood import MaximumLikelihood

OBJECTIVES: dict[str, Any] = {"maximum_likelihood": MaximumLikelihood}

# Enough for a choice among epochs (the standard error of a share of one half is 0.022), and
# seconds rather than half a minute an epoch.
MONITORED_IMAGES = 500
MONITORED_FIGURES = (
    "CIDEr",
    "BLEU-4",
    "fact_accuracy",
    "repeated_token_rate",
    "distinct_captions",
)


def train_stage(
    run: RunDirectory,
    config: Config,
    number: int,
    captioner: Captioner,
    pipeline: Pipeline,
    splits: dict[str, PreparedSplit],
    examples: Sequence[Example],
) -> None:
    """Trains the captioner by one objective, from where an interrupted run left it.

    Args:
        run: Gets checkpoints, curves and logs.
        config: Settings of the run.
        number: Position of the stage in `config.stages`.
        captioner: Is trained; ends with the weights of the last epoch.
        pipeline: Gives batches.
        splits: `train` and `val`.
        examples: Of the split `val`.

    Raises:
        CaptionGANError: The loss is no longer a number.
    """
    objective = config.stages[number]
    name = f"{number}-{objective}"
    settings = getattr(config, objective)
    train, val = splits["train"], splits["val"]
    steps = train.images // settings.batch_size
    if not steps:
        raise CaptionGANError(
            f"{objective}.batch_size is {settings.batch_size}, but there are only "
            f"{train.images} training images; give a smaller one."
        )
    model = OBJECTIVES[objective].stage(
        captioner, settings, steps * settings.epochs, config.seed + number
    )
    kept, averaging = captioner, []  # What is kept also writes the captions that are scored.
    if settings.averaging:
        kept = captioner.copy()
        averaging = [RunningAverage(captioner.weights, kept.weights, settings.averaging)]
    averages = kept.weights if averaging else []
    continuation = callbacks.Continuation(run.checkpoints / name, model, averages)
    epochs_done = continuation.restore()
    if epochs_done == settings.epochs:
        return

    history = run.read_history()
    epochs = history.setdefault(name, [])
    del epochs[epochs_done:]
    # Truth, where it is known; else likeness to what people say.
    watched = "val_fact_accuracy" if truth_checker(config.data) else "val_CIDEr"
    best = max((figures[watched] for past in history.values() for figures in past), default=-1)
    decoder = Decoder(kept, pipeline.tokenizer, config.decoding, config.seed)
    logs = run.logs / name
    batches = pipeline.training(
        "train", train.images, settings.batch_size, settings.captions, config.seed + number
    )
    try:
        with Interruption() as interruption:
            model.fit(
                batches,
                validation_data=pipeline.validation("val", val.images, settings.batch_size),
                epochs=settings.epochs,
                initial_epoch=epochs_done,
                shuffle=False,  # The pipeline does.
                verbose=0,
                # In this order: the first ones add figures that the later ones read, what is said
                # to be done is on disk, and an interruption ends an epoch that is whole.
                callbacks=[
                    *_word_vector_policy(config, captioner),
                    callbacks.StopOnInvalidLoss(_fail),
                    *averaging,
                    callbacks.CaptionMetrics(_monitor(decoder, pipeline, val, examples, config)),
                    callbacks.History(epochs, lambda: write_json(run.history, history)),
                    callbacks.KeepBest(
                        lambda: save_weights(kept, run.best_weights), monitor=watched, best=best
                    ),
                    continuation,
                    callbacks.Progress(objective),
                    *_sample_captions(decoder, pipeline, val, examples, config, logs),
                    keras.callbacks.TensorBoard(
                        log_dir=logs,
                        histogram_freq=int(config.logging.histograms),
                        write_graph=False,
                        profile_batch=_profiled_steps(config),
                    ),
                    interruption,
                ],
            )
    except KeyboardInterrupt:
        if not run.best_weights.exists():
            save_weights(kept, run.best_weights)
        raise


def _fail(reason: str) -> NoReturn:
    raise CaptionGANError(
        f"Training stopped: {reason}. The weights of the best epoch so far are kept. Try a lower "
        "learning rate."
    )


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
    epochs = config.text.unfreeze_after if policy == "unfrozen" else sys.maxsize
    return [callbacks.UnfreezeEmbeddings(captioner.generator.embedding, epochs)]


def _monitor(
    decoder: Decoder,
    pipeline: Pipeline,
    val: PreparedSplit,
    examples: Sequence[Example],
    config: Config,
) -> Callable[[], dict[str, float]]:
    """Scores greedy captions of the first validation images."""
    watched = examples[:MONITORED_IMAGES]
    batches = pipeline.validation("val", val.images, config.decoding.batch_size)
    batches = batches.unbatch().take(len(watched)).batch(config.decoding.batch_size).cache()
    is_true = truth_checker(config.data)

    def measure() -> dict[str, float]:
        captions = [
            caption for batch in batches for ((caption, _),) in decoder.spell(decoder.greedy(batch))
        ]
        figures = score_captions(captions, watched, is_true)
        return {name: value for name, value in figures.items() if name in MONITORED_FIGURES}

    return measure


def _sample_captions(
    decoder: Decoder,
    pipeline: Pipeline,
    val: PreparedSplit,
    examples: Sequence[Example],
    config: Config,
    logs: Path,
) -> list[keras.callbacks.Callback]:
    """Pictures of a few validation images with caption and attention, for TensorBoard."""
    count = min(config.logging.images, len(examples))
    if not count:
        return []
    batches = pipeline.validation("val", val.images, count).take(1)

    def draw() -> dict[str, np.ndarray]:
        described = (image for batch in batches for image in decoder.describe(batch, 0))
        return {
            example.image_id: np.asarray(attention_picture(example.image, tokens, attention))
            for example, (_, tokens, attention) in zip(examples, described, strict=False)
        }

    return [callbacks.SampleCaptions(logs, draw)]
