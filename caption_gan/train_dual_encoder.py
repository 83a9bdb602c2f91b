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
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from caption_gan.command_line import run_program
from caption_gan.config.dual_encoder import DualEncoderConfig
from caption_gan.config.paths import with_absolute_paths
from caption_gan.config.run import Config
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
from caption_gan.models.hugging_face.sentence_encoder import load_sentence_encoder
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
) -> dict[str, Any]:
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
    # Without frozen layers there is nothing to cache, and the dual encoder does not fine-tune.
    trainable = config.encoder.frozen_up_to is not None
    config, encoder = open_encoder(
        dataclasses.replace(
            config, encoder=dataclasses.replace(config.encoder, trainable=trainable)
        )
    )
    if not encoder.needs_pixels:
        raise CaptionGANError(
            f"encoder.name is {config.encoder.name}, which cannot embed images; choose an encoder "
            "that reads pixels."
        )
    splits = prepare_splits(
        config, encoder, ("train", "val"), lambda split, images: check_size(settings, split, images)
    )
    check_size(settings, "train", splits["train"].images)
    examples = {split: list(read_examples(prepared)) for split, prepared in splits.items()}
    captions = [caption for example in examples["train"] for caption in example.captions]

    def head(name: str) -> Head:
        return Head(settings.hidden_size, settings.size, settings.dropout, name=name)

    images = ImageTower(encoder, settings.pooling, head("image_head"), name="images")
    texts: TextTower
    if sentence_encoder is not None:
        texts = SentenceTower(sentence_encoder, head("text_head"), name="texts")
    else:
        words = build_vocabulary(
            captions,
            config.text.tokenizer,
            config.text.minimum_count,
            config.text.maximum_vocabulary,
        )
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "vocabulary.txt"
            write_vocabulary(file, words)
            tokenizer = Tokenizer(
                file, config.text.tokenizer, config.text.sequence_length, in_graph=True
            )
        texts = RecurrentTower(
            tokenizer, config.generator.embedding_size, settings.hidden_size, head("text_head")
        )
    wrong = WrongCaptions(config.data.source, examples["train"])
    pairs = {
        split: read_pairs(
            prepared,
            config,
            images,
            texts,
            wrong.of(examples[split], settings.wrong_captions if split == "train" else WRONG, 0),
            examples[split],
            all_views=split == "train",
        )
        for split, prepared in splits.items()
    }
    steps = settings.epochs * (splits["train"].images // settings.batch_size)
    trainer = ContrastiveTrainer(images, texts, settings, steps)
    dataset = batches(pairs["train"], settings, config.seed)
    for epoch in range(settings.epochs):
        history = trainer.fit(dataset, epochs=1, verbose=0).history
        line = ", ".join(f"{name} {values[0]:.4f}" for name, values in history.items())
        print(f"epoch {epoch + 1}/{settings.epochs}: {line}", file=sys.stderr)
    scores = evaluate(trainer, pairs["val"])
    scale = float(trainer.scale)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        ServedDualEncoder(images, texts).write(temporary, scale, {"command": command})
        content = {**scores, "minutes": (time.monotonic() - started) / 60}
        write_json(temporary / "metrics.json", content)
    return scores


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
        scores[f"one_wrong/{kind}"] = float(np.mean(is_nearer[kinds == kind]))
    return scores


def embed(tower: ImageTower | TextTower, features: np.ndarray) -> np.ndarray:
    """Vectors of features, in batches."""
    function = tf.function(tower, reduce_retracing=True)
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
