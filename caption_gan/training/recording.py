"""What a stage writes while it trains: history, curves, weights, TensorBoard's logs."""

import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import keras
import tensorflow as tf
from tqdm import tqdm

from caption_gan.config.run import Config
from caption_gan.distribution import strategies
from caption_gan.run import RunDirectory, save_weights
from caption_gan.storage.atomic import replacing, write_json
from caption_gan.training import callbacks
from caption_gan.training.checkpoints import TrainingCheckpoint
from caption_gan.training.objectives.trainer import Trainer
from caption_gan.training.parameters import describe_size, training_size
from caption_gan.training.validation import CaptionValidation

CURVE_POINTS = 100  # Of the training curves of a stage: as many as a chart can show.


def recording_callbacks(
    run: RunDirectory,
    config: Config,
    name: str,
    trainer: Trainer,
    validation: CaptionValidation,
    checkpoint: TrainingCheckpoint,
) -> list[keras.callbacks.Callback]:
    """What the chief alone writes: history, best weights, TensorBoard, checkpoints, progress.

    Args:
        run: Receives everything.
        config: Settings of the run.
        name: Name of the stage.
        trainer: Trains the stage.
        validation: Captions images for TensorBoard.
        checkpoint: Restored state; its epochs stay in the history, later ones are dropped.
    """
    history, logs = run.read_history(), run.logs / name
    epochs = history.setdefault(name, [])
    del epochs[checkpoint.position.epochs :]
    curves = run.read_step_curves()
    steps_per_epoch = trainer.steps / trainer.config.epochs
    reached = checkpoint.position.epochs + checkpoint.position.steps / steps_per_epoch
    points = curves[name] = [
        point for point in curves.get(name, []) if point["epoch"] <= reached + 1e-6
    ]

    def keep_best() -> None:
        save_weights(trainer.kept_captioner, run.best_weights)
        with replacing(run.stage_weights(name)) as temporary:
            shutil.copyfile(run.best_weights, temporary)
        if trainer.critic is not None:
            save_weights(trainer.critic, run.critic_weights)

    watched = trainer.monitored_metric(facts_are_known=validation.fact_checker is not None)
    pictures = [callbacks.SampleCaptions(logs, validation.pictures)] if validation.shown else []
    return [
        callbacks.History(epochs, lambda: write_json(run.history, history)),
        callbacks.StepCurves(
            points,
            trainer.metrics,
            max(1, trainer.steps // CURVE_POINTS),
            lambda: write_json(run.step_curves, curves),
        ),
        callbacks.SaveBest(keep_best, watched, epochs),
        *pictures,
        keras.callbacks.TensorBoard(
            log_dir=logs,
            histogram_freq=int(config.logging.histograms),
            write_graph=False,
            profile_batch=_profiled_steps(config),
        ),
        checkpoint,
        # Steps differ in the critic's warm-up, and the first one compiles.
        callbacks.StepTime(max(1, trainer.config.generator_warmup_steps), print_line),
        callbacks.Progress(name.partition("-")[2]),
    ]


def record_size(run: RunDirectory, name: str, trainer: Trainer) -> None:
    """Prints the parameters of a stage, and keeps them for the report."""
    size = training_size(trainer)
    print("\n".join(describe_size(name.partition("-")[2], size)), file=sys.stderr)
    write_json(run.parameters, run.read_parameters() | {name: size.networks})


def print_line(line: str) -> None:
    """Prints a line on standard error, above a progress bar if there is one."""
    tqdm.write(line, file=sys.stderr)


def tensorboard_scalars(folder: Path) -> Callable[[Mapping[str, float], int], None]:
    """A function that writes values by name for TensorBoard; it does nothing but on the chief."""
    if not strategies.is_chief():
        return lambda values, step: None
    writer = tf.summary.create_file_writer(str(folder))

    def write(values: Mapping[str, float], step: int) -> None:
        with writer.as_default():
            for name, value in values.items():
                tf.summary.scalar(f"health/{name}", value, step=step)
        writer.flush()

    return write


def _profiled_steps(config: Config) -> tuple[int, int] | int:
    if config.profile_steps is None:
        return 0
    first, last = map(int, config.profile_steps.split(","))
    return first, last
