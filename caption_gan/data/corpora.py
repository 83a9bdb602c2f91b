"""Reads text corpora: sentences without images, more real captions for a critic.

S sentences, T sequence length.
"""

import json
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

import numpy as np
import tensorflow as tf

from caption_gan.data.skips import Skips, shown
from caption_gan.data.sources.json_records import read_array
from caption_gan.errors import CaptionGANError
from caption_gan.storage import filesystem, text_files
from caption_gan.storage.paths import resolve
from caption_gan.text.tokenizer import Tokenizer
from caption_gan.text.vocabulary import batched

_BATCH = 8192  # Sentences that are tokenized together.
KEYS = ("caption", "text", "sentence")


def read_corpora(
    paths: Sequence[str], skips: Skips, encoding: str = text_files.UTF_8
) -> Iterator[str]:
    """Yields the sentences of text files.

    Args:
        paths: Text files with one sentence per line, or JSON Lines or arrays (`.jsonl`, `.json`)
            of strings or of objects with a key `caption`, `text` or `sentence`. Files of lines may
            be larger than memory.
        skips: Counts lines without a sentence; empty lines are not counted.
        encoding: As in `text_files.read_text`.

    Raises:
        CaptionGANError: A file does not exist, or is not text in its encoding.
    """
    for path in map(resolve, paths):
        if not filesystem.is_file(path):
            raise CaptionGANError(
                f"data.corpora: {path} is not a file; expected sentences, one per line, or JSON "
                "Lines."
            )
        for place, found, sentence in _sentences(path, encoding):
            if sentence is None:
                skips.add(
                    f"lines have no {' or '.join(KEYS)}, of {path}", f"{place} ({shown(found)})"
                )
            elif sentence:
                yield sentence


def _sentences(path: str, encoding: str) -> Iterator[tuple[str, Any, str | None]]:
    """Yields each place of a file, what stands there, and its sentence if it has one."""
    expected = "sentences, one per line, or JSON Lines"
    lines = enumerate(text_files.read_lines(path, expected, encoding), start=1)
    filled = ((f"line {number}", line.strip()) for number, line in lines if line.strip())
    if not path.endswith((".json", ".jsonl")):
        yield from ((place, line, line) for place, line in filled)
        return
    first = next(filled, None)
    if first is None:
        return
    array = None
    if first[1].startswith("["):
        array = read_array(text_files.read_text(path, expected, encoding), path)
    if array is not None:
        for number, element in enumerate(array, start=1):
            yield f"number {number}", element, _sentence(element)
        return
    for place, line in chain([first], filled):
        try:
            yield place, line, _sentence(json.loads(line))
        except ValueError:
            yield place, line, None


def check_corpora(paths: Sequence[str], encoding: str, tokenizer: Tokenizer | None = None) -> None:
    """Checks that files are text and have sentences; tokenizes no more than the first ones.

    Args:
        paths: As in `read_corpora`.
        encoding: As in `text_files.read_text`.
        tokenizer: The tokenizer of the captions: one sentence of all files must be usable. None
            before there is a vocabulary: each file must have a sentence.

    Raises:
        CaptionGANError: A file does not exist, is not text in its encoding or has no sentence, or
            no sentence is usable.
    """
    skips = Skips()
    if tokenizer is not None:
        if paths and not any(map(len, _usable_batches(paths, tokenizer, skips, encoding))):
            raise _nothing_usable(paths, skips)
        return
    for path in paths:
        if next(read_corpora([path], skips, encoding), None) is None:
            reasons = " ".join(f"{line}." for line in skips.lines())
            raise CaptionGANError(
                f"data.corpora: {path} has no sentence; expected sentences, one per line, or JSON "
                f"Lines. {reasons}".strip()
            )
        text_files.check(resolve(path), "sentences, one per line", encoding)


def tokenize_corpora(
    paths: Sequence[str], tokenizer: Tokenizer, skips: Skips, encoding: str = text_files.UTF_8
) -> np.ndarray:
    """Token ids of the sentences that a generator could generate.

    Sentences with an unknown word or longer than T are left out: a critic could tell them from
    generated captions by that alone.

    Args:
        paths: As in `read_corpora`.
        tokenizer: The tokenizer of the captions.
        skips: Counts sentences that are left out.
        encoding: As in `text_files.read_text`.

    Returns:
        Token ids [S, T], uint16 if the vocabulary fits, else int32.

    Raises:
        CaptionGANError: A file does not exist, or no sentence is left.
    """
    dtype = np.uint16 if tokenizer.vocabulary_size <= 2**16 else np.int32
    batches = [np.empty((0, tokenizer.sequence_length), dtype)]
    batches += [batch.astype(dtype) for batch in _usable_batches(paths, tokenizer, skips, encoding)]
    token_ids = np.concatenate(batches)
    if not len(token_ids):
        raise _nothing_usable(paths, skips)
    return token_ids


def _usable_batches(
    paths: Sequence[str], tokenizer: Tokenizer, skips: Skips, encoding: str
) -> Iterator[np.ndarray]:
    """Yields token ids [_, T] of the usable sentences of each batch that is read."""
    for sentences in batched(read_corpora(paths, skips, encoding), _BATCH):
        texts = tf.constant([text.encode("utf-8", "replace") for text in sentences])
        token_ids = tokenizer.tokenize(texts).numpy()
        unknown = (token_ids == tokenizer.special_tokens.unknown).any(axis=-1)
        long = tokenizer.too_long(texts).numpy()
        for reason, mask in (("have unknown words", unknown), ("are too long", long & ~unknown)):
            if mask.any():
                first = sentences[int(mask.argmax())]
                skips.add(f"sentences of data.corpora {reason}", first, int(mask.sum()))
        yield token_ids[~unknown & ~long]


def _nothing_usable(paths: Sequence[str], skips: Skips) -> CaptionGANError:
    return CaptionGANError(
        f"data.corpora: {', '.join(paths)} have no sentence that has only known words and is "
        f"short enough. {' '.join(f'{line}.' for line in skips.lines())}"
    )


def _sentence(content: Any) -> str | None:
    """The sentence in an item of JSON; None if there is none."""
    if isinstance(content, dict):
        content = next((content[key] for key in KEYS if key in content), None)
    return content.strip() if isinstance(content, str) else None
