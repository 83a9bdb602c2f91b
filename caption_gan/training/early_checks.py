"""Checks the files that a run reads and writes before it prepares data and trains for hours."""

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np

from caption_gan.config.run import Config
from caption_gan.data.corpora import check_corpora
from caption_gan.data.service.client import wait_for_dispatcher
from caption_gan.distribution import strategies
from caption_gan.errors import CaptionGANError
from caption_gan.models.dual_encoders.saved_model import DualEncoder, load_dual_encoder
from caption_gan.models.encoders.encoder import Encoder
from caption_gan.run import RunDirectory
from caption_gan.storage.atomic import check_writable
from caption_gan.text.embeddings import WordVectors, load_word_vectors, vector_size
from caption_gan.text.kinds import open_tokenizer
from caption_gan.text.vocabulary import write_vocabulary


def check_files(config: Config, run: RunDirectory) -> None:
    """Opens the files that the settings name and tries to write to the run directory.

    The data set and the encoder check their own files, when they are opened.

    Raises:
        CaptionGANError: A file is missing or holds something else, or nothing can be written.
    """
    try:
        check_writable(run.path)
    except OSError as error:
        raise CaptionGANError(
            f"run_dir: cannot write to {run.path}: {error.strerror}; choose another folder."
        ) from error
    check_corpora(config.data.corpora, config.data.encoding)
    if config.text.word_vectors is not None:
        size = vector_size(config.text.word_vectors)
        if size != config.generator.embedding_size:
            raise CaptionGANError(
                f"{config.text.word_vectors} has vectors of size {size}, but "
                f"generator.embedding_size is {config.generator.embedding_size}; set it to {size}."
            )

    def check_dual_encoder() -> None:
        load_dual_encoder(config.evaluation.dual_encoder)

    strategies.from_chief(check_dual_encoder)  # Only the chief evaluates.


def check_reward_encoders(config: Config, encoder: Encoder) -> None:
    """Checks the dual encoders that objectives reward captions with, against the run's encoder.

    Raises:
        CaptionGANError: One cannot be loaded, cannot read the batches of the run, or does not give
            finite vectors.
    """
    for objective in config.stages:
        path = config.objective(objective).dual_encoder_path
        if path is not None:
            dual_encoder = DualEncoder(Path(path))
            dual_encoder.check_fits(encoder)
            dual_encoder.embed_texts(["a caption"])  # Raises an error if it is not finite.


def check_training_inputs(config: Config, vocabulary: Sequence[str]) -> WordVectors | None:
    """Checks what depends on the vocabulary, and the service that makes batches.

    Args:
        config: Settings of the run.
        vocabulary: All entries, before they are written.

    Returns:
        The pretrained word vectors that the settings name.

    Raises:
        CaptionGANError: Words of files are not in the vocabulary, or the service does not answer.
    """
    word_vectors = None
    if config.text.word_vectors is not None:
        word_vectors = load_word_vectors(config.text.word_vectors, vocabulary, config.seed)
    if config.data.corpora:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "vocabulary.txt"
            write_vocabulary(path, vocabulary)
            tokenizer = open_tokenizer(path, config.text.tokenizer, config.text.sequence_length)
            check_corpora(config.data.corpora, config.data.encoding, tokenizer)
    if config.data.service is not None:
        wait_for_dispatcher(config.data.service, with_worker=True)
    return word_vectors


def check_disk(captioner: keras.Model, run: RunDirectory) -> None:
    """Checks that the disk has room for the weights and for one checkpoint with two moments each.

    Raises:
        CaptionGANError: It has not.
    """
    weights = sum(np.prod(variable.shape) * 4 for variable in captioner.variables)
    needed, free = 5 * weights, shutil.disk_usage(run.path).free
    if free < needed:
        raise CaptionGANError(
            f"run_dir: {run.path} has {free / 1e6:.0f} MB free, but the weights and one checkpoint "
            f"take {needed / 1e6:.0f} MB; make room or choose another folder."
        )
