"""Text without images: sentences that show a critic how people write.

S sentences, T sequence length.
"""

import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from caption_gan.data.skips import Skips
from caption_gan.errors import CaptionGANError
from caption_gan.storage import filesystem
from caption_gan.text.tokenizer import Tokenizer
from caption_gan.text.vocabulary import batched

_AT_ONCE = 8192
KEYS = ("caption", "text", "sentence")


def read_corpora(paths: Sequence[str], skips: Skips) -> Iterator[str]:
    """Yields the sentences of files one after another.

    Args:
        paths: Files with one sentence a line, or JSON Lines (`.jsonl`) of texts or of objects with
            `caption`, `text` or `sentence`. They may be larger than memory.
        skips: Counts lines that are no such thing; empty ones are passed over.

    Raises:
        CaptionGANError: A file is not there.
    """
    for path in map(filesystem.resolve, paths):
        if not filesystem.is_file(path):
            raise CaptionGANError(
                f"data.corpora: {path} is not a file; expected one sentence a line, or JSON Lines."
            )
        is_json = path.endswith(".jsonl")
        with filesystem.as_os_errors(), tf.io.gfile.GFile(path, "rb") as file:
            for number, line in enumerate(file, start=1):
                text = line.decode("utf-8", errors="replace").strip()
                sentence = _sentence(text) if is_json and text else text
                if sentence is None:
                    skips.add(f"lines have no {' or '.join(KEYS)}, of {path}", f"line {number}")
                elif sentence:
                    yield sentence


def tokenize_corpora(paths: Sequence[str], tokenizer: Tokenizer, skips: Skips) -> np.ndarray:
    """Token ids of the sentences that a generator could write.

    One with an unknown word or without its end would tell a critic how to know real sentences by
    what no generator writes; such sentences are counted.

    Args:
        paths: As of `read_corpora`.
        tokenizer: Of the captions.
        skips: Counts what is left out.

    Returns:
        uint16 or int32 [S, T], the smaller one that holds the vocabulary.

    Raises:
        CaptionGANError: A file is not there, or no sentence is left.
    """
    kind = np.uint16 if tokenizer.vocabulary_size <= 2**16 else np.int32
    kept = [np.empty((0, tokenizer.sequence_length), kind)]
    for sentences in batched(read_corpora(paths, skips), _AT_ONCE):
        texts = tf.constant([text.encode("utf-8", "replace") for text in sentences])
        token_ids = tokenizer.tokenize(texts).numpy()
        unknown = (token_ids == tokenizer.unk_id).any(axis=-1)
        long = tokenizer.too_long(texts).numpy()
        for reason, which in (("have unknown words", unknown), ("are too long", long & ~unknown)):
            if which.any():
                first = sentences[int(which.argmax())]
                skips.add(f"sentences of data.corpora {reason}", first, int(which.sum()))
        kept.append(token_ids[~unknown & ~long].astype(kind))
    token_ids = np.concatenate(kept)
    if not len(token_ids):
        raise CaptionGANError(
            f"data.corpora: {', '.join(paths)} have no sentence of known words that is short "
            f"enough. {' '.join(f'{line}.' for line in skips.lines())}"
        )
    return token_ids


def _sentence(line: str) -> str | None:
    try:
        content: Any = json.loads(line)
    except ValueError:
        return None
    if isinstance(content, dict):
        content = next((content[key] for key in KEYS if key in content), None)
    return content.strip() if isinstance(content, str) else None
