"""GPT-2's byte-pair tokenizer, in the graph and cut to the pieces that captions use.

GPT-2 writes each byte of a piece as a printable character, the space as `\u0120`; vocabulary files
do so too. The entries stand in the order in which the pieces were learnt. Two neighbours are merged
if their concatenation is an entry, the earliest entry first. The file thus holds all that is needed
to split new text: pieces, ids and merges.

N captions, U distinct words, L characters of the longest word, V vocabulary, (W) words and (P)
pieces (ragged); [...] stands for any leading dimensions.
"""

import itertools
import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import tensorflow as tf
import tensorflow_text as tf_text

from caption_gan.errors import CaptionGANError
from caption_gan.text.tokenizer import Tokenizer
from caption_gan.text.vocabulary import SPECIAL_TOKENS, UNK_ID, batched

# White space for the regular expressions of GPT-2's tokenizer, which RE2's `\s` is only in part.
_SPACE = r"\s\v\p{Z}\x{85}"
_SPLIT = "|".join(
    (
        r" ?\[UNK\]",
        "'s|'t|'re|'ve|'m|'ll|'d",
        r" ?\p{L}+",
        r" ?\p{N}+",
        rf" ?[^{_SPACE}\p{{L}}\p{{N}}]+",
        " ",
    )
)
_COUNTED_AT_ONCE = 8192


def _byte_characters() -> list[str]:
    """The printable character of each byte: itself if it has one in Latin-1."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = iter(range(256, 512))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]


BYTE_CHARACTERS = _byte_characters()
_BYTE_OF = {character: byte for byte, character in enumerate(BYTE_CHARACTERS)}


def split_as_gpt2(captions: tf.Tensor) -> tf.RaggedTensor:
    """Splits captions into words with the space before them, of which pieces are parts.

    White space becomes single spaces, with none around a caption. GPT-2 itself would keep line
    breaks and double spaces, which mean nothing in captions.

    Args:
        captions: string [N]; bytes that are not UTF-8 are replaced.

    Returns:
        string [N, (W)].
    """
    text = tf_text.coerce_to_structurally_valid_utf8(captions)
    text = tf.strings.strip(tf.strings.regex_replace(text, rf"[{_SPACE}]+", " "))
    return tf_text.regex_split(text, _SPLIT, _SPLIT)


class BytePairTokenizer(Tokenizer):
    """Splits captions as GPT-2 does, into pieces that captions of a training split use.

    Words that need other pieces are split into shorter ones of the vocabulary.

    Args:
        vocabulary_path: File with the entries that `build_byte_pair_vocabulary` returns.
        sequence_length: T; see `Tokenizer`.
        in_graph: See `Tokenizer`.
    """

    def __init__(
        self,
        vocabulary_path: str | os.PathLike[str],
        sequence_length: int = 20,
        in_graph: bool = False,
    ):
        super().__init__(vocabulary_path, "byte_pair", sequence_length, in_graph)
        contents = [_bytes_of(piece) for piece in self.vocabulary]
        # The unknown token stands for a word, so that it is apart from the word before.
        contents[UNK_ID] = f" {SPECIAL_TOKENS[UNK_ID]}".encode()
        self._contents = tf.constant(contents)  # string [V]
        self._shown = tf.constant([_readable(piece) for piece in self.vocabulary])

    def detokenize(self, token_ids: tf.Tensor) -> tf.Tensor:
        """Turns token ids into captions; see `Tokenizer`. Bytes that are not UTF-8 are replaced."""
        token_ids = tf.convert_to_tensor(token_ids)
        pieces = tf.where(self._is_text(token_ids), tf.gather(self._contents, token_ids), "")
        text = tf_text.coerce_to_structurally_valid_utf8(tf.strings.reduce_join(pieces, axis=-1))
        return tf.strings.strip(text)

    def token_strings(self, token_ids: tf.Tensor) -> tf.Tensor:
        """Looks up the string of each token without the space before it, special ones included."""
        return tf.gather(self._shown, token_ids)

    def _split(self, captions: tf.Tensor) -> tf.RaggedTensor:
        return split_as_gpt2(captions)

    def _pieces(self, words: tf.Tensor) -> tf.RaggedTensor:
        """Ids of the pieces of words; int64 [N, (P)]."""
        words, word_of = tf.unique(words)  # [U], [N]
        letters = tf.strings.bytes_split(words)  # [U, (L)]
        byte = tf.reshape(tf.io.decode_raw(letters.flat_values, tf.uint8), [-1])
        byte = tf.cast(byte, tf.int32)
        letters = letters.with_flat_values(tf.gather(tf.constant(BYTE_CHARACTERS), byte))
        pieces = tf.pad(letters.to_tensor(), [[0, 0], [0, 1]], constant_values="")  # [U, L + 1]
        unknown = tf.strings.regex_full_match(words, r" ?\[UNK\]")[:, None]
        marker = tf.where(tf.range(tf.shape(pieces)[1]) == 0, SPECIAL_TOKENS[UNK_ID], "")
        pieces = tf.where(unknown, marker, pieces)
        none = tf.constant(len(self.vocabulary), tf.int64)

        def ranks(pieces: tf.Tensor) -> tf.Tensor:
            """Positions of all pairs in the vocabulary, or V; int64 [U, L + 1]."""
            followers = _followers(pieces)
            merged = self._ids.lookup(tf.strings.join([pieces, followers]))
            return tf.where((followers != "") & (merged > UNK_ID), merged, none)

        def merge(pieces: tf.Tensor, rank: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            """Merges the pair of each word that comes first in the vocabulary."""
            best = tf.argmin(rank, axis=1)[:, None]  # [U, 1]
            best = tf.where(tf.reduce_min(rank, axis=1, keepdims=True) < none, best, none)
            place = tf.range(tf.shape(pieces, tf.int64)[1])
            followers = _followers(pieces)
            pair = tf.strings.join([pieces, followers])
            after = tf.where(place == best, pair, followers)
            pieces = tf.where(place < best, pieces, after)
            return pieces, ranks(pieces)

        pieces, _ = tf.while_loop(
            lambda pieces, rank: tf.reduce_any(rank < none),
            merge,
            (pieces, ranks(pieces)),
            # The tables of a graph may differ from call to call.
            shape_invariants=(tf.TensorShape([None, None]), tf.TensorShape([None, None])),
        )
        lengths = tf.reduce_sum(tf.cast(pieces != "", tf.int64), axis=1)
        token_ids = tf.RaggedTensor.from_tensor(self._ids.lookup(pieces), lengths)  # [U, (P)]
        return tf.gather(token_ids, word_of)

    def _check_kind(self, source: str | os.PathLike[str]) -> None:
        """Refuses entries that are not written in the characters of bytes."""
        for piece in self.vocabulary[len(SPECIAL_TOKENS) :]:
            if not _BYTE_OF.keys() >= set(piece):
                raise CaptionGANError(
                    f"{source}: expected pieces of GPT-2's kind for tokenizer byte_pair, got "
                    f"{piece!r}; restore the file or train again"
                )


def _followers(pieces: tf.Tensor) -> tf.Tensor:
    """The next piece of each, nothing after the last one; string [U, L + 1]."""
    return tf.pad(pieces[:, 1:], [[0, 0], [0, 1]], constant_values="")


def _bytes_of(piece: str) -> bytes:
    return bytes(_BYTE_OF[character] for character in piece if character in _BYTE_OF)


def _readable(piece: str) -> str:
    """A piece as text without the space around it, or as it is written if it has no other text."""
    if piece in SPECIAL_TOKENS:
        return piece
    try:
        return _bytes_of(piece).decode().strip() or piece
    except UnicodeDecodeError:  # A part of a character.
        return piece


class BytePairs(NamedTuple):
    """A byte-pair tokenizer as its files describe it.

    Attributes:
        ids: Row of each piece in the embedding matrix.
        ranks: When each pair of pieces was learnt to be merged, from 0.
    """

    ids: dict[str, int]
    ranks: dict[tuple[str, str], int]

    def merges(self, word: str) -> Iterable[tuple[str, str]]:
        """Yields the pairs that are merged in a word, in order."""
        pieces = list(word)
        while pairs := self.ranks.keys() & set(itertools.pairwise(pieces)):
            first = min(pairs, key=self.ranks.__getitem__)
            yield first
            place = list(itertools.pairwise(pieces)).index(first)
            pieces[place : place + 2] = ["".join(first)]


def read_byte_pairs(folder: str | os.PathLike[str]) -> BytePairs:
    """Reads `vocab.json` and `merges.txt`, or `tokenizer.json`, of a Hugging Face folder.

    Raises:
        CaptionGANError: A file is missing or damaged, or holds another kind of tokenizer.
    """
    path = Path(folder).expanduser()
    whole = path / "tokenizer.json"
    try:
        if (path / "merges.txt").is_file() or not whole.is_file():
            ids = json.loads((path / "vocab.json").read_text(encoding="utf-8"))
            lines = (path / "merges.txt").read_text(encoding="utf-8").split("\n")
            merges = [line for line in lines if line and not line.startswith("#version")]
        else:
            content = json.loads(whole.read_text(encoding="utf-8"))
            ids, merges = content["model"]["vocab"], content["model"]["merges"]
            ids |= {token["content"]: token["id"] for token in content.get("added_tokens", [])}
        pairs = [tuple(pair.split(" ") if isinstance(pair, str) else pair) for pair in merges]
        ranks = {(left, right): rank for rank, (left, right) in enumerate(pairs)}
    except OSError as error:
        raise CaptionGANError(
            f"{error.filename} cannot be read: {error.strerror}; give a folder of GPT-2 with "
            "vocab.json and merges.txt, or with tokenizer.json."
        ) from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CaptionGANError(
            f"{path} has no byte-pair tokenizer that can be read ({error}); give a folder of GPT-2 "
            "with vocab.json and merges.txt, or with tokenizer.json."
        ) from error
    missing = [piece for piece in BYTE_CHARACTERS if piece not in ids]
    missing += [left + right for left, right in ranks if left + right not in ids]
    if missing:
        raise CaptionGANError(
            f"{path}: the tokenizer lacks {len(missing)} pieces that a byte-pair tokenizer of "
            f"GPT-2's kind has, such as {missing[0]!r}; take all its files from the same place."
        )
    return BytePairs(ids, ranks)


def build_byte_pair_vocabulary(
    captions: Iterable[str], pairs: BytePairs, minimum_count: int, maximum_size: int
) -> list[str]:
    """Chooses the pieces of a vocabulary: those of captions, and the shorter ones they consist of.

    Args:
        captions: The captions of the training split.
        pairs: The tokenizer.
        minimum_count: Rarer words, spelt as they are, need not be whole pieces.
        maximum_size: Maximum number of entries; pieces that were learnt last are left out first.

    Returns:
        The special tokens, then single bytes, then pieces in the order in which they were learnt.

    Raises:
        CaptionGANError: Fewer than two pieces are left.
    """
    counts = _count_words(captions)
    characters = {character for word in counts for character in word}
    pieces: dict[str, int] = {}
    for word, count in counts.items():
        for left, right in pairs.merges(word) if count >= minimum_count else ():
            pieces[left + right] = pairs.ranks[left, right]
    entries = [
        *SPECIAL_TOKENS,
        *(character for character in BYTE_CHARACTERS if character in characters),
        *sorted(pieces, key=pieces.__getitem__),
    ]
    if len(entries[:maximum_size]) < len(SPECIAL_TOKENS) + 2:
        raise CaptionGANError(
            f"vocabulary: expected at least two pieces in captions, got {len(characters)}; give "
            "more captions"
        )
    return entries[:maximum_size]


def _count_words(captions: Iterable[str]) -> Mapping[str, int]:
    """Counts the words of captions, written in the characters of bytes."""
    counts: Counter[bytes] = Counter()
    for batch in batched(captions, _COUNTED_AT_ONCE):
        encoded = [caption.encode("utf-8", "ignore") for caption in batch]
        counts.update(split_as_gpt2(tf.constant(encoded, tf.string)).flat_values.numpy().tolist())
    return {
        "".join(BYTE_CHARACTERS[byte] for byte in word): count
        for word, count in counts.items()
        if word.strip() != SPECIAL_TOKENS[UNK_ID].encode()
    }
