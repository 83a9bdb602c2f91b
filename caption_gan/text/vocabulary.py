"""Splitting captions into words, building a vocabulary, and the vocabulary file.

A vocabulary is a list of strings; the position of a string is its token id. The first four are
special tokens. The file `vocabulary.txt` has one entry per line, in UTF-8 with Unix line ends.
WordPiece entries that continue a word start with `##`.

N captions, (W) words of a caption (ragged).
"""

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Literal, NamedTuple, TypeVar

import tensorflow as tf
import tensorflow_text as tf_text
from tensorflow_text.tools.wordpiece_vocab import wordpiece_tokenizer_learner_lib as learner

from caption_gan.errors import CaptionGANError
from caption_gan.storage.atomic import replacing
from caption_gan.text.scripts import UNSPACED

SPECIAL_TOKENS = ("[PAD]", "[START]", "[END]", "[UNK]")
PAD_ID, START_ID, END_ID, UNK_ID = range(4)


class SpecialTokens(NamedTuple):
    """Ids of a tokenizer's special tokens; the defaults are those of a vocabulary file."""

    pad: int = PAD_ID
    start: int = START_ID
    end: int = END_ID
    unknown: int = UNK_ID


SPECIAL_IDS = SpecialTokens()
CONTINUATION = "##"
# Stand for numbers, brackets and equations in the normalised captions of SciCap.
PLACEHOLDERS = ("num-tk", "bracket-tk", "equat-tk")

Kind = Literal["word", "wordpiece", "byte_pair"]
Item = TypeVar("Item")

_SPACE = r"[\s\p{Z}\p{C}]"
_LETTERS = r"[\p{L}\p{M}\p{N}]+"
_SPLIT = "|".join(
    (
        rf"{_SPACE}+",
        r"\[UNK\]",
        r"\p{N}+(?:[.,]\p{N}+)+",  # 3.5 and 1,000 are one word each, as in GloVe
        rf"{_LETTERS}(?:['\-]{_LETTERS})*",  # dog's, t-shirt
        # A symbol with the marks that follow it: marks alone are no words.
        r"[^\s\p{Z}\p{C}]\p{M}*",
    )
)
_KEEP = r"[^\s\p{Z}\p{C}]+"
_COUNTED_AT_ONCE = 8192


def split_words(captions: tf.Tensor) -> tf.RaggedTensor:
    """Normalises captions (NFKC, case fold) and splits them into words, in the graph.

    White space separates words. In scripts that put no spaces between words, such as Chinese, each
    character with its marks is a word. Each punctuation mark is a word, except hyphens and
    apostrophes inside a word and the point or comma inside a number. Placeholders such as `NUM-TK`
    are always separate words. Text is folded to lower case, so that it cannot contain a special
    token, with one exception: `[UNK]` remains the unknown word, so that decoded captions can be
    tokenized again.

    Args:
        captions: string [N]; bytes that are not UTF-8 are replaced.

    Returns:
        string [N, (W)]; a caption without words is an empty row.
    """
    text = tf_text.coerce_to_structurally_valid_utf8(captions)
    # Byte-order marks, soft hyphens and zero-width characters are invisible, and words that differ
    # by them would look alike. Removed before NFKC, which may compose the characters around them.
    text = tf.strings.regex_replace(text, r"\p{Cf}", "")
    # Case folding can undo the normal form, so it is applied twice.
    text = tf_text.normalize_utf8(text, "NFKC")
    text = tf_text.normalize_utf8(tf_text.case_fold_utf8(text), "NFKC")
    text = tf.strings.regex_replace(text, "[\u2018\u2019\u02bc]", "'")
    text = tf.strings.regex_replace(text, "\u2010", "-")
    # Tokenized corpora (Flickr8k) write "dog 's".
    clitic = r"([\p{L}\p{N}])\s+('(?:s|d|m|ll|re|ve))(\s|$)"
    text = tf.strings.regex_replace(text, clitic, r"\1\2\3")
    text = tf.strings.regex_replace(text, f"({'|'.join(PLACEHOLDERS)})", r" \1 ")
    text = tf.strings.regex_replace(text, r"\[unk\]", SPECIAL_TOKENS[UNK_ID])
    text = tf.strings.regex_replace(text, rf"([{UNSPACED}]\p{{M}}*)", r" \1 ")
    return tf_text.regex_split(text, _SPLIT, _KEEP)


def count_words(captions: Iterable[str]) -> Counter[str]:
    """Counts the words of captions as `split_words` finds them."""
    counts: Counter[bytes] = Counter()
    for batch in batched(captions, _COUNTED_AT_ONCE):
        # JSON files can hold lone surrogates, which UTF-8 cannot encode.
        encoded = [caption.encode("utf-8", "ignore") for caption in batch]
        counts.update(split_words(tf.constant(encoded, tf.string)).flat_values.numpy().tolist())
    counts.pop(SPECIAL_TOKENS[UNK_ID].encode(), None)
    return Counter({word.decode("utf-8"): count for word, count in counts.items()})


def build_vocabulary(
    captions: Iterable[str], kind: Kind, minimum_count: int, maximum_size: int
) -> list[str]:
    """Chooses the entries of a vocabulary from captions.

    Args:
        captions: The captions of the training split.
        kind: `word` takes whole words, most frequent first, ties in alphabetical order;
            `wordpiece` learns pieces of words with tensorflow-text's learner (6 to 11 seconds for
            35,000 captions; the time grows with the number of distinct words).
        minimum_count: Rarer words are left out (`word`) or not learned from (`wordpiece`).
        maximum_size: Maximum number of entries, the special tokens included.

    Returns:
        The special tokens followed by words or pieces.

    Raises:
        CaptionGANError: If fewer than two words are left or the settings are impossible.
    """
    if kind not in ("word", "wordpiece"):
        raise CaptionGANError(f"vocabulary kind: expected 'word' or 'wordpiece', got {kind!r}")
    if maximum_size < len(SPECIAL_TOKENS) + 2:
        raise CaptionGANError(
            f"vocabulary maximum_size: expected at least {len(SPECIAL_TOKENS) + 2} "
            f"(special tokens and two words), got {maximum_size}"
        )
    counts = count_words(captions)
    frequent = sorted(
        ((word, count) for word, count in counts.items() if count >= minimum_count),
        key=lambda pair: (-pair[1], pair[0]),
    )
    if len(frequent) < 2:
        raise CaptionGANError(
            f"vocabulary: expected at least two words seen {minimum_count} times or more, got "
            f"{len(frequent)} of {len(counts)} distinct words; give more captions or lower "
            "minimum_count"
        )
    if kind == "word":
        words = [word for word, _ in frequent]
        return [*SPECIAL_TOKENS, *words[: maximum_size - len(SPECIAL_TOKENS)]]
    placeholders = [word for word in PLACEHOLDERS if word in counts]
    return _learn_pieces(frequent, placeholders, minimum_count, maximum_size)


def _learn_pieces(
    frequent: Sequence[tuple[str, int]],
    placeholders: Sequence[str],
    minimum_count: int,
    maximum_size: int,
) -> list[str]:
    reserved = [*SPECIAL_TOKENS, *placeholders]  # Never pieces, however rare they are.
    learned = learner.learn(
        list(frequent),
        vocab_size=maximum_size,
        reserved_tokens=reserved,
        lower_thresh=max(1, minimum_count),
        joiner=CONTINUATION,
    )
    # The learner may return more than `vocab_size` pieces. Single characters are always kept:
    # without one of them, all words that contain it would be unknown.
    needed = set(reserved) | {
        piece for piece in learned if len(piece.removeprefix(CONTINUATION)) == 1
    }
    if len(needed) > maximum_size:
        raise CaptionGANError(
            f"vocabulary maximum_size: expected at least {len(needed)} for the special tokens and "
            f"the characters of these captions, got {maximum_size}; raise it or minimum_count"
        )
    room = maximum_size - len(needed)
    others = [piece for piece in learned if piece not in needed]  # most frequent first
    chosen = needed.union(others[:room])
    return [piece for piece in learned if piece in chosen]


def write_vocabulary(path: str | os.PathLike[str], words: Sequence[str]) -> None:
    """Writes a vocabulary atomically.

    Args:
        path: The file, usually `vocabulary.txt` in the run directory.
        words: All entries, the special tokens first, as `build_vocabulary` returns them.

    Raises:
        CaptionGANError: If the entries are not a vocabulary or the file cannot be written.
    """
    _check(words, str(path))
    try:
        with replacing(Path(path)) as temporary:
            temporary.write_bytes("".join(f"{word}\n" for word in words).encode("utf-8"))
    except OSError as error:
        raise CaptionGANError(f"{path}: the vocabulary cannot be written ({error.strerror})") from (
            error
        )


def read_vocabulary(path: str | os.PathLike[str]) -> list[str]:
    """Reads a vocabulary and checks it.

    Raises:
        CaptionGANError: If the file is missing, is not UTF-8, does not start with the special
            tokens, repeats an entry, has a line that is empty or holds white space, or lists fewer
            than two words.
    """
    try:
        text = Path(path).read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise CaptionGANError(
            f"{path}: expected a vocabulary in UTF-8, got other bytes at position {error.start}; "
            "train again or restore the file"
        ) from error
    except OSError as error:
        raise CaptionGANError(
            f"{path}: expected a vocabulary file ({error.strerror}); give a run directory that "
            "training has written"
        ) from error
    # Not splitlines(): it also splits at characters that TensorFlow counts as part of a line.
    words = text.removesuffix("\n").split("\n") if text else []
    _check(words, str(path))
    return words


def _check(words: Sequence[str], source: str) -> None:
    remedy = "restore the file or train again"
    first_line: dict[str, int] = {}
    for line, word in enumerate(words, start=1):
        if not word or any(character.isspace() for character in word):
            raise CaptionGANError(
                f"{source}: expected one word without white space per line, with Unix line ends, "
                f"got {word!r} in line {line}; {remedy}"
            )
        if word in first_line:
            raise CaptionGANError(
                f"{source}: expected every word once, got {word!r} in lines {first_line[word]} "
                f"and {line}; {remedy}"
            )
        first_line[word] = line
    special = tuple(words[: len(SPECIAL_TOKENS)])
    if special != SPECIAL_TOKENS:
        raise CaptionGANError(
            f"{source}: expected the first four lines to be {' '.join(SPECIAL_TOKENS)}, got "
            f"{' '.join(map(repr, special)) or 'an empty file'}; {remedy}"
        )
    if len(words) < len(SPECIAL_TOKENS) + 2:
        raise CaptionGANError(
            f"{source}: expected at least two words after the special tokens, got "
            f"{len(words) - len(SPECIAL_TOKENS)}; train on more captions or lower minimum_count"
        )


def batched(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Divides items into lists of so many; the last one may be shorter."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch
