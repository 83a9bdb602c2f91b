"""The kinds of tokenizers: vocabularies and tokenizers by the settings."""

import os
from collections.abc import Sequence

from caption_gan.config.models import TextConfig
from caption_gan.text.byte_pair import (
    BytePairTokenizer,
    build_byte_pair_vocabulary,
    read_byte_pairs,
)
from caption_gan.text.tokenizer import Tokenizer
from caption_gan.text.vocabulary import Kind, build_vocabulary


def choose_vocabulary(
    config: TextConfig, captions: Sequence[str], folder: str | None = None
) -> list[str]:
    """Chooses the entries of a vocabulary from the training captions.

    Args:
        config: Settings of the text.
        captions: The captions.
        folder: Hugging Face folder with the tokenizer, for `byte_pair`.

    Raises:
        CaptionGANError: Too few words or pieces are left, or the folder cannot be used.
    """
    sizes = config.minimum_count, config.maximum_vocabulary
    if config.tokenizer == "byte_pair":
        return build_byte_pair_vocabulary(captions, read_byte_pairs(str(folder)), *sizes)
    return build_vocabulary(captions, config.tokenizer, *sizes)


def open_tokenizer(
    vocabulary_path: str | os.PathLike[str],
    kind: Kind,
    sequence_length: int,
    in_graph: bool = False,
) -> Tokenizer:
    """Returns the tokenizer of a kind; see `Tokenizer`."""
    if kind == "byte_pair":
        return BytePairTokenizer(vocabulary_path, sequence_length, in_graph)
    return Tokenizer(vocabulary_path, kind, sequence_length, in_graph)
