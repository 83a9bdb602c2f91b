"""The tokenizer: captions to token ids and back, in the graph, so that it can be served.

N captions, T sequence length, V vocabulary, (W) words or (P) pieces of words (ragged); [...]
stands for any leading dimensions, such as [B, K].
"""

import os
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf
import tensorflow_text as tf_text

from caption_gan.errors import CaptionGANError
from caption_gan.text.scripts import CHINESE_AND_JAPANESE, PUNCTUATION, UNSPACED
from caption_gan.text.vocabulary import (
    CONTINUATION,
    END_ID,
    PAD_ID,
    SPECIAL_IDS,
    SPECIAL_TOKENS,
    START_ID,
    UNK_ID,
    Kind,
    read_vocabulary,
    split_words,
)

# Punctuation that normalisation makes half as wide, after a Chinese or Japanese character.
_FULL_WIDTH = {",": "\uff0c", "!": "\uff01", "?": "\uff1f", ";": "\uff1b", ":": "\uff1a"}


class Tokenizer(tf.Module):
    """Turns captions into token ids and token ids into captions.

    Works eagerly, in `tf.data`, in `tf.function` and in a SavedModel, of which the vocabulary file
    becomes an asset. A process that loads such a model must import `tensorflow_text` first, which
    registers the operations.

    Args:
        vocabulary_path: File written by `write_vocabulary`.
        kind: `word` or `wordpiece`, the kind of the vocabulary.
        sequence_length: T, the number of tokens per caption, start, end and padding included.
        in_graph: Whether graphs contain the vocabulary instead of the name of its file, for
            machines that do not have the file.

    Attributes:
        special_tokens: Ids of padding, start, end and unknown token.

    Raises:
        CaptionGANError: If the vocabulary cannot be read or is of the other kind, or
            `sequence_length` leaves no room for a word.
    """

    special_tokens = SPECIAL_IDS

    def __init__(
        self,
        vocabulary_path: str | os.PathLike[str],
        kind: Kind = "word",
        sequence_length: int = 20,
        in_graph: bool = False,
    ):
        super().__init__(name="tokenizer")
        if sequence_length < 3:
            raise CaptionGANError(
                f"sequence_length: expected at least 3 (start, a word, end), got {sequence_length}"
            )
        self.kind = kind
        self.sequence_length = sequence_length
        self.vocabulary = tuple(read_vocabulary(vocabulary_path))
        self._check_kind(vocabulary_path)
        if in_graph:
            words, numbers = tf.constant(self.vocabulary), tf.range(len(self.vocabulary))
            numbers = tf.cast(numbers, tf.int64)
            to_ids = tf.lookup.KeyValueTensorInitializer(words, numbers)
            to_words = tf.lookup.KeyValueTensorInitializer(numbers, words)
        else:
            # Both tables read the same file, so that it is exported as one asset.
            path = os.path.abspath(vocabulary_path)
            line, number = tf.lookup.TextFileIndex.WHOLE_LINE, tf.lookup.TextFileIndex.LINE_NUMBER
            to_ids = tf.lookup.TextFileInitializer(path, tf.string, line, tf.int64, number)
            to_words = tf.lookup.TextFileInitializer(path, tf.int64, number, tf.string, line)
        self._ids = tf.lookup.StaticHashTable(to_ids, default_value=UNK_ID)
        self._words = tf.lookup.StaticHashTable(to_words, default_value=SPECIAL_TOKENS[UNK_ID])
        self._wordpiece = tf_text.WordpieceTokenizer(
            self._ids, suffix_indicator=CONTINUATION, unknown_token=SPECIAL_TOKENS[UNK_ID]
        )
        self._spacing = _Spacing.of_tokens(self.vocabulary)

    @property
    def vocabulary_size(self) -> int:
        """V, the special tokens included."""
        return len(self.vocabulary)

    def tokenize(self, captions: tf.Tensor) -> tf.Tensor:
        """Turns captions into token ids: start, words, end, padding.

        A caption that is too long loses its last words; words of several pieces are cut as a
        whole. The end token is always there.

        Args:
            captions: string [...].

        Returns:
            int32 [..., T].
        """
        captions = tf.convert_to_tensor(captions, tf.string)
        words, fitting = self._token_ids(captions)  # [N, (P)], [N]
        words = words.to_tensor(PAD_ID, shape=[None, self.sequence_length - 1])  # [N, T - 1]
        place = tf.range(self.sequence_length - 1, dtype=tf.int64) - fitting[:, tf.newaxis]
        # The end token takes the position after the last word that fits; padding follows.
        words = tf.where(place < 0, words, tf.where(tf.equal(place, 0), END_ID, PAD_ID))
        token_ids = tf.pad(words, [[0, 0], [1, 0]], constant_values=START_ID)  # [N, T]
        shape = tf.concat([tf.shape(captions), [self.sequence_length]], axis=0)
        return tf.ensure_shape(
            tf.reshape(token_ids, shape), captions.shape.concatenate(self.sequence_length)
        )  # [..., T]

    def detokenize(self, token_ids: tf.Tensor) -> tf.Tensor:
        """Turns token ids into captions: `a dog, running.`, `一只dog在跑。`

        Args:
            token_ids: integer [..., T]; tokens after the first end token are ignored.

        Returns:
            string [...], with `[UNK]` for unknown words.
        """
        token_ids = tf.convert_to_tensor(token_ids)
        spaces = self._spacing.before(token_ids) if self._spacing else " "
        pieces = tf.strings.join([spaces, self.token_strings(token_ids)])
        if self.kind == "wordpiece":
            pieces = tf.strings.regex_replace(pieces, f"^ ?{CONTINUATION}", "")
        text = tf.strings.reduce_join(tf.where(self._is_text(token_ids), pieces, ""), axis=-1)
        # Square brackets and quotation marks keep their spaces: without them, "[ unk ]" would be
        # the unknown word, and a straight quotation mark may open or close.
        text = tf.strings.regex_replace(text, r" ([,.;:!?%)])", r"\1")
        text = tf.strings.regex_replace(text, r"\( ([^\p{M}\s])", r"(\1")
        for half_width, full_width in _FULL_WIDTH.items() if self._spacing else ():
            text = tf.strings.regex_replace(
                text, rf"([{CHINESE_AND_JAPANESE}])\{half_width} ?", rf"\1{full_width}"
            )
        return tf.strings.strip(text)

    def token_strings(self, token_ids: tf.Tensor) -> tf.Tensor:
        """Looks up the string of each token, special ones included.

        Args:
            token_ids: integer [...].

        Returns:
            string [...].
        """
        return self._words.lookup(tf.cast(token_ids, tf.int64))

    def usable(self, captions: tf.Tensor) -> tf.Tensor:
        """Whether captions contain at least one known word that is not punctuation.

        False for captions that are empty after normalisation or in another alphabet.

        Args:
            captions: string [...].

        Returns:
            bool [...].
        """
        captions = tf.convert_to_tensor(captions, tf.string)
        words = self._split(tf.reshape(captions, [-1]))  # [N, (W)]
        telling = tf.strings.regex_full_match(words.flat_values, r".*[\p{L}\p{N}].*")
        known = words.with_flat_values(self._known(words.flat_values) & telling)
        return tf.reshape(tf.reduce_any(known, axis=1), tf.shape(captions))

    def too_long(self, captions: tf.Tensor) -> tf.Tensor:
        """Whether `tokenize` cuts captions.

        Args:
            captions: string [...].

        Returns:
            bool [...].
        """
        return self.lengths(captions) > self.sequence_length

    def lengths(self, captions: tf.Tensor) -> tf.Tensor:
        """Number of tokens of whole captions, start and end included.

        Args:
            captions: string [...].

        Returns:
            int64 [...].
        """
        captions = tf.convert_to_tensor(captions, tf.string)
        token_ids, _ = self._token_ids(captions)
        return tf.reshape(token_ids.row_lengths() + 2, tf.shape(captions))

    def out_of_vocabulary_rate(self, captions: tf.Tensor) -> tf.Tensor:
        """Share of the words of captions that are unknown; punctuation counts.

        Args:
            captions: string [...].

        Returns:
            float32 scalar in [0, 1]; 0 if there are no words.
        """
        words = self._split(tf.reshape(tf.convert_to_tensor(captions, tf.string), [-1]))
        unknown = tf.cast(~self._known(words.flat_values), tf.float32)
        return tf.math.divide_no_nan(tf.reduce_sum(unknown), tf.cast(tf.size(unknown), tf.float32))

    def _token_ids(self, captions: tf.Tensor) -> tuple[tf.RaggedTensor, tf.Tensor]:
        """Looks up tokens, and counts those of the first words that fit as a whole."""
        words = self._split(tf.reshape(captions, [-1]))  # [N, (W)]
        room = tf.constant(self.sequence_length - 2, tf.int64)
        if self.kind == "word":
            token_ids = words.with_flat_values(self._ids.lookup(words.flat_values))
            return tf.cast(token_ids, tf.int32), tf.minimum(words.row_lengths(), room)
        pieces = words.with_flat_values(self._pieces(words.flat_values))  # [N, (W), (P)]
        pieces = tf.cast(pieces, tf.int32)
        ends = tf.cumsum(pieces.row_lengths(axis=2).to_tensor(), axis=1)  # [N, W]
        fitting = tf.reduce_max(tf.where(ends <= room, ends, 0), axis=1)
        # The maximum over no words is the smallest integer.
        return pieces.merge_dims(1, 2), tf.maximum(fitting, tf.constant(0, tf.int64))

    def _known(self, words: tf.Tensor) -> tf.Tensor:
        if self.kind == "word":
            return tf.not_equal(self._ids.lookup(words), UNK_ID)
        return tf.reduce_all(tf.not_equal(self._pieces(words), UNK_ID), axis=1)

    def _split(self, captions: tf.Tensor) -> tf.RaggedTensor:
        """Splits captions [N] into words [N, (W)]."""
        return split_words(captions)

    def _pieces(self, words: tf.Tensor) -> tf.RaggedTensor:
        """Ids of the pieces of words; [N] to [N, (P)]."""
        return self._wordpiece.tokenize(words)

    @staticmethod
    def _is_text(token_ids: tf.Tensor) -> tf.Tensor:
        """Whether tokens [..., T] are shown: not special, and before the first end token."""
        ended = tf.cumsum(tf.cast(tf.equal(token_ids, END_ID), tf.int32), axis=-1) > 0
        return ~ended & tf.not_equal(token_ids, PAD_ID) & tf.not_equal(token_ids, START_ID)

    def _check_kind(self, source: str | os.PathLike[str]) -> None:
        if self.kind not in ("word", "wordpiece"):
            raise CaptionGANError(
                f"tokenizer kind: expected 'word' or 'wordpiece', got {self.kind!r}"
            )
        # No whole word starts with it: `split_words` makes two words of "##".
        pieces = sum(word.startswith(CONTINUATION) for word in self.vocabulary)
        if self.kind == "word" and pieces:
            raise CaptionGANError(
                f"{source}: expected whole words for kind 'word', got {pieces} pieces that start "
                f"with {CONTINUATION}; set kind to 'wordpiece'"
            )


class _Spacing(NamedTuple):
    """Where spaces stand between tokens of a vocabulary with characters of unspaced scripts.

    These characters, and Latin words, numbers and punctuation beside them, follow each other
    without a space; other neighbours keep theirs.

    Attributes:
        unspaced: bool [V]; whether a token is a character of an unspaced script.
        joined: bool [V]; whether a token stands beside such characters without a space.
    """

    unspaced: np.ndarray
    joined: np.ndarray

    @classmethod
    def of_tokens(cls, tokens: Sequence[str]) -> "_Spacing | None":
        """Returns the spacing of a vocabulary; None if all its tokens stand between spaces."""
        with tf.init_scope():
            unspaced = tf.strings.regex_full_match(
                tokens, rf"({CONTINUATION})?[{UNSPACED}{PUNCTUATION}]\p{{M}}*"
            ).numpy()
            beside = tf.strings.regex_full_match(tokens, r".*[\p{Latin}\p{N}].*|[^\pL\pN]+").numpy()
        return cls(unspaced, unspaced | beside) if unspaced.any() else None

    def before(self, token_ids: tf.Tensor) -> tf.Tensor:
        """Returns the space, or nothing, that stands before each token; string [..., T]."""
        unspaced, joined = (tf.gather(values, token_ids) for values in self)

        def previous(values: tf.Tensor) -> tf.Tensor:
            return tf.concat([tf.zeros_like(values[..., :1]), values[..., :-1]], axis=-1)

        is_joined = (previous(unspaced) & joined) | (previous(joined) & unspaced)
        return tf.where(is_joined, "", " ")
