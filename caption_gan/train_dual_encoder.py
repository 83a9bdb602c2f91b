"""Trains a dual encoder: `python -m caption_gan.train_dual_encoder [--config configs/X.yaml]`.

A dual encoder embeds images and texts in one space, so that a text lies near the images it
describes. The result is a SavedModel that `evaluate --evaluation.dual_encoder` measures retrieval
with, and that objectives reward captions with.
"""

import dataclasses
import shlex
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from caption_gan.command_line import run_program
from caption_gan.config.dual_encoder import DualEncoderConfig
from caption_gan.config.paths import with_absolute_paths
from caption_gan.config.run import Config
from caption_gan.data.example import Example
from caption_gan.data.shards.prepare import prepare_splits
from caption_gan.data.shards.records import read_examples
from caption_gan.errors import CaptionGANError
from caption_gan.exporting.served_dual_encoder import ServedDualEncoder
from caption_gan.metrics.retrieval import retrieval_both_ways
from caption_gan.models.dual_encoders.towers import (
    Head,
    ImageTower,
    RecurrentTower,
    SentenceTower,
    TextTower,
)
from caption_gan.models.encoders.encoder import Encoder
from caption_gan.models.hugging_face.sentence_encoder import (
    SentenceEncoder,
    load_sentence_encoder,
)
from caption_gan.reporting.dual_encoder_report import ONE_WRONG, write_dual_encoder_report
from caption_gan.run import open_encoder
from caption_gan.settings import config_parser, merge_settings
from caption_gan.storage.atomic import check_writable, replacing, write_json
from caption_gan.storage.paths import local_path
from caption_gan.text.tokenizer import Tokenizer
from caption_gan.text.vocabulary import build_vocabulary, write_vocabulary
from caption_gan.training.contrastive.pairs import Pairs, read_pairs
from caption_gan.training.contrastive.trainer import ContrastiveTrainer, batches
from caption_gan.training.contrastive.wrong_captions import WrongCaptions

NAME = "python -m caption_gan.train_dual_encoder"
VECTORS_AT_A_TIME = 256
WRONG = 1  # Wrong versions of each validation caption.


def train_dual_encoder(
    config: Config, settings: DualEncoderConfig, path: Path, command: str = NAME
) -> dict[str, float]:
    """Trains a dual encoder and writes it.

    Args:
        config: Settings of the data, the encoder and the tokens.
        settings: Settings of the dual encoder.
        path: The directory to write.
        command: Command line that is kept with the results.

    Returns:
        Metrics on the validation split.

    Raises:
        CaptionGANError: The data or a setting cannot be used.
    """
    started = time.monotonic()
    keras.utils.set_random_seed(config.seed)
    sentence_encoder = None
    if settings.sentence_encoder is not None:
        sentence_encoder = load_sentence_encoder(settings.sentence_encoder)
    config, encoder = open_encoder(with_frozen_backbone(config))
    if not encoder.needs_pixels:
        raise CaptionGANError(
            f"encoder.name is {config.encoder.name}, which cannot embed images; choose an encoder "
            "that reads pixels."
        )
    splits = prepare_splits(
        config, encoder, ("train", "val"), lambda split, images: check_size(settings, split, images)
    )
    examples = {split: list(read_examples(prepared)) for split, prepared in splits.items()}
    examples["train"] = examples["train"][: settings.images]
    check_size(settings, "train", len(examples["train"]))  # Some images may be unusable.
    images, texts = build_towers(config, settings, encoder, sentence_encoder, examples["train"])
    maker = WrongCaptions(config.data.source, examples["train"])
    wrong = {
        "train": maker.of(examples["train"], settings.wrong_captions, config.seed),
        "val": maker.of(examples["val"], WRONG, config.seed),
    }
    pairs = {
        split: read_pairs(
            prepared,
            config,
            images,
            texts,
            wrong[split],
            examples[split],
            all_views=split == "train",
        )
        for split, prepared in splits.items()
    }
    steps = settings.epochs * (len(examples["train"]) // settings.batch_size)
    trainer = ContrastiveTrainer(images, texts, settings, steps)
    history = train(trainer, batches(pairs["train"], settings, config.seed), settings.epochs)
    metrics = evaluate(trainer, pairs["val"])
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as folder:
        ServedDualEncoder(images, texts).write(folder, float(trainer.scale), {"command": command})
        counts = {
            "training_images": len(examples["train"]),
            "images": len(examples["val"]),
            "captions": len(pairs["val"].texts),
            "minutes": (time.monotonic() - started) / 60,
        }
        write_json(folder / "metrics.json", {**metrics, **counts, "history": history})
        wrong_examples = {
            version.kind: (caption, version.text)
            for example, by_caption in zip(examples["val"], wrong["val"], strict=True)
            for caption, versions in zip(example.captions, by_caption, strict=True)
            for version in versions
        }
        write_dual_encoder_report(
            folder / "report.html", path.name, command, metrics, history, wrong_examples, counts
        )
    return metrics


def with_frozen_backbone(config: Config) -> Config:
    """Settings whose encoder caches all that a dual encoder does not train."""
    # Layers after the cached ones are not fine-tuned, either; without any cached, all are.
    trainable = config.encoder.frozen_up_to is not None
    encoder = dataclasses.replace(config.encoder, trainable=trainable)
    return dataclasses.replace(config, encoder=encoder)


def build_towers(
    config: Config,
    settings: DualEncoderConfig,
    encoder: Encoder,
    sentence_encoder: SentenceEncoder | None,
    training: Sequence[Example],
) -> tuple[ImageTower, TextTower]:
    """The image tower and the text tower, which learns the words of the training captions itself
    if there is no sentence encoder."""

    def head(name: str) -> Head:
        return Head(settings.hidden_size, settings.size, settings.dropout, name=name)

    images = ImageTower(encoder, settings.pooling, head("image_head"), name="images")
    if sentence_encoder is not None:
        return images, SentenceTower(sentence_encoder, head("text_head"), name="texts")
    text = config.text
    captions = [caption for example in training for caption in example.captions]
    words = build_vocabulary(captions, text.tokenizer, text.minimum_count, text.maximum_vocabulary)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "vocabulary.txt"
        write_vocabulary(file, words)
        tokenizer = Tokenizer(file, text.tokenizer, text.sequence_length, in_graph=True)
    embedding_size = config.generator.embedding_size
    return images, RecurrentTower(
        tokenizer, embedding_size, settings.hidden_size, head("text_head"), name="texts"
    )


def train(
    trainer: ContrastiveTrainer, dataset: tf.data.Dataset, epochs: int
) -> list[dict[str, float]]:
    """Trains for some epochs, and returns the training metrics of each."""
    history = []
    step = tf.function(trainer.train_step, autograph=False)
    for epoch in range(1, epochs + 1):
        trainer.reset_metrics()
        for batch in dataset:
            metrics = step(batch)
        history.append({name: float(value) for name, value in metrics.items()})
        line = ", ".join(f"{name} {value:.3f}" for name, value in history[-1].items())
        print(f"epoch {epoch}/{epochs}: {line}", file=sys.stderr)
    return history


def check_size(settings: DualEncoderConfig, split: str, images: int) -> None:
    """Refuses a training split that does not fill a batch."""
    if split == "train" and images < settings.batch_size:
        raise CaptionGANError(
            f"dual_encoder.batch_size is {settings.batch_size}, but there are only {images} "
            "training images; give a smaller one."
        )


def evaluate(trainer: ContrastiveTrainer, pairs: Pairs) -> dict[str, float]:
    """Retrieval both ways, and how often the true caption is nearer than a wrong version of it."""
    images = embed(trainer.images, pairs.images[:, 0])
    texts = embed(trainer.texts, pairs.texts)
    image_of_text = np.repeat(np.arange(len(images)), np.diff(pairs.first))
    scores = retrieval_both_ways(images, texts, image_of_text)
    if not pairs.is_wrong.any():
        return scores
    wrong = embed(trainer.texts, pairs.wrong[pairs.is_wrong])
    caption_of_wrong, _ = np.nonzero(pairs.is_wrong)
    own = images[image_of_text[caption_of_wrong]]
    is_nearer = np.sum((texts[caption_of_wrong] - wrong) * own, axis=1) > 0
    kinds = pairs.kinds[pairs.is_wrong]
    for kind in sorted(set(kinds)):
        scores[f"{ONE_WRONG}/{kind}"] = float(np.mean(is_nearer[kinds == kind]))
    return scores


def embed(tower: ImageTower | TextTower, features: np.ndarray) -> np.ndarray:
    """Vectors of features, in batches."""
    function = tf.function(tower, autograph=False, reduce_retracing=True)
    starts = range(0, len(features), VECTORS_AT_A_TIME)
    return np.concatenate(
        [function(features[start : start + VECTORS_AT_A_TIME]).numpy() for start in starts]
    )


def main() -> None:
    """Runs the program."""
    parser = config_parser(NAME, (__doc__ or "").splitlines()[0])
    parser.add_class_arguments(DualEncoderConfig, "dual_encoder")
    arguments, config = merge_settings(parser, sys.argv[1:])
    settings = with_absolute_paths(parser.instantiate(arguments).dual_encoder)
    default = Path("runs") / f"dual_encoder-{config.data.source}-{time.strftime('%Y%m%d-%H%M%S')}"
    path = local_path(config.run_dir or default)
    check_new(path)
    command = shlex.join(["python", "-m", "caption_gan.train_dual_encoder", *sys.argv[1:]])
    scores = train_dual_encoder(config, settings, path, command)
    width = max(map(len, scores))
    print("\n".join(f"{name:{width}}  {value:.3f}" for name, value in scores.items()))
    print(f"\n{path}")


def check_new(path: Path) -> None:
    """Refuses a directory that holds something, or that cannot be written."""
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise CaptionGANError(f"run_dir: {path} is not empty; choose another folder.")
    try:
        check_writable(path)
    except OSError as error:
        raise CaptionGANError(
            f"run_dir: cannot write to {path}: {error.strerror}; choose another folder."
        ) from error


if __name__ == "__main__":
    run_program(main)
