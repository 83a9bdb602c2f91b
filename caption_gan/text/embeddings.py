"""The word embedding layer, and pretrained word vectors.

V vocabulary, E embedding; [...] stands for any leading dimensions, such as [B, T].
"""

import codecs
import gzip
import io
import os
import re
import shlex
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

from caption_gan.errors import CaptionGANError
from caption_gan.storage.text_files import marked_encoding
from caption_gan.storage.text_guesses import likely_encoding, other_content
from caption_gan.text.vocabulary import PAD_ID, SPECIAL_TOKENS, count_words

_CONFLICT = re.compile(rb"(<{7}|={7}|>{7})(\s|$)")


@dataclass(frozen=True, eq=False)
class WordVectors:
    """Pretrained vectors for a vocabulary.

    Attributes:
        words: V entries of the vocabulary, special tokens included.
        matrix: float32 [V, E]; the row of padding is zero.
        found: bool [V]; whether the file has the word. The other rows are random.
    """

    words: tuple[str, ...]
    matrix: np.ndarray
    found: np.ndarray

    def coverage(self, counts: Mapping[str, int] | None = None) -> float:
        """Share of the vocabulary's words that have a pretrained vector.

        Args:
            counts: How often each word occurs (`count_words`), as the weight of the word. By
                default, each word of the vocabulary has the same weight.

        Returns:
            A share from 0 to 1, without the special tokens.
        """
        weights = np.array(
            [
                0 if word in SPECIAL_TOKENS else 1 if counts is None else counts.get(word, 0)
                for word in self.words
            ],
            dtype=np.float64,
        )
        total = weights.sum()
        return float(weights[self.found].sum() / total) if total else 0.0

    def describe(self, captions: Iterable[str]) -> str:
        """Describes how much of the vocabulary and of captions has a pretrained vector."""
        return (
            f"word vectors: {self.coverage():.1%} of the vocabulary and "
            f"{self.coverage(count_words(captions)):.1%} of the words in captions have one"
        )


def load_word_vectors(
    path: str | os.PathLike[str], vocabulary: Sequence[str], seed: int = 0
) -> WordVectors:
    """Loads the vectors of a vocabulary from GloVe's or word2vec's text format.

    A line holds a word and E numbers, separated by single spaces; a first line of two integers is
    word2vec's header. Files that end in `.gz` are decompressed. Words are looked up in lower case,
    as in the vocabulary.

    Args:
        path: The file of vectors.
        vocabulary: V entries, as `read_vocabulary` returns them.
        seed: For the rows of words without a vector: normal random numbers with the mean and
            standard deviation of all numbers that were found.

    Raises:
        CaptionGANError: If the file is missing or of another format or encoding, a line has the
            wrong number of values, or the file has no word of the vocabulary.
    """
    row_of = {
        word.encode("utf-8"): row
        for row, word in enumerate(vocabulary)
        if word not in SPECIAL_TOKENS
    }
    vectors: dict[int, np.ndarray] = {}
    size, others = 0, []
    for number, word, values in _entries(path):
        size = len(values)
        row = row_of.get(word)
        if row is not None and row not in vectors:
            vectors[row] = _vector(values, path, number)
        elif not word.isascii():
            others.append(word)
    _refuse_other_encodings(path, others, [w for w, row in row_of.items() if row not in vectors])
    if not vectors:
        raise CaptionGANError(
            f"{path}: expected vectors of some of the vocabulary's {len(row_of)} words, found "
            "none; give vectors of the captions' language, with words in lower case"
        )
    return _fill(tuple(vocabulary), vectors, size, seed)


def vector_size(path: str | os.PathLike[str]) -> int:
    """Returns E of a file of vectors, of which only the beginning is read.

    Raises:
        CaptionGANError: The file is missing, of another format or without vectors.
    """
    for number, _, values in _entries(path):
        _vector(values, path, number)
        return len(values)
    raise CaptionGANError(
        f"{path}: expected a word and its numbers in each line, found none; give vectors in "
        "GloVe's or word2vec's text format"
    )


def _entries(path: str | os.PathLike[str]) -> Iterator[tuple[int, bytes, list[bytes]]]:
    """Yields the line number, the word and the E fields of its numbers; see `load_word_vectors`."""
    size = 0
    for number, line in enumerate(_lines(path), start=1):
        fields = line.rstrip(b" \r\n").split(b" ")
        if number == 1:
            header = len(fields) == 2 and all(field.isdigit() for field in fields)
            size = int(fields[1]) if header else len(fields) - 1
            if size < 1 or not all(map(_is_number, fields[1:])):
                raise CaptionGANError(
                    f"{path}: expected a word and its numbers in line 1, got {_described(line)}; "
                    "give vectors in GloVe's or word2vec's text format"
                )
            if header:
                continue
        # A few words of GloVe's 840B file contain spaces (". . ."), so only the last E fields are
        # numbers. A number before them means that the line is too long.
        surplus = len(fields) - 1 - size
        values = fields[surplus + 1 :]
        if surplus < 0 or (
            surplus > 0 and (_is_number(fields[surplus]) or not all(map(_is_number, values)))
        ):
            raise CaptionGANError(
                f"{path}: expected {size} values in line {number}, as in the lines before, got "
                f"{len(fields) - 1}: {_described(line)}; download the file again or remove the line"
            )
        yield number, b" ".join(fields[: surplus + 1]), values


def _lines(path: str | os.PathLike[str]) -> Iterator[bytes]:
    """Yields lines as bytes: some of GloVe's words contain line separators of Unicode."""
    name = str(path)
    if name.endswith(".zip"):
        raise CaptionGANError(f"{path}: expected a text file or .gz; unpack the archive first")
    try:
        with gzip.open(path) if name.endswith(".gz") else Path(path).open("rb") as file:
            encoding = marked_encoding(file.read(4))
            file.seek(len(codecs.BOM_UTF8) if encoding == "utf-8-sig" else 0)
            if encoding in ("utf-16", "utf-32"):
                text = io.TextIOWrapper(file, encoding, errors="replace", newline="\n")
                yield from (line.encode() for line in text)
            else:
                yield from file
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise CaptionGANError(
            f"{path}: expected a whole gzip file ({error}); download it again"
        ) from error
    except OSError as error:
        raise CaptionGANError(
            f"{path}: expected a file of word vectors ({error.strerror}); give the path of one in "
            "GloVe's or word2vec's text format, or none to start from random vectors"
        ) from error


def _described(line: bytes) -> str:
    """Quotes the beginning of a line and says, where possible, what it is instead of a vector."""
    shown = repr(line.rstrip().decode("utf-8", "replace")[:40])
    if _CONFLICT.match(line):
        return f"{shown}, a conflict marker of Git"
    if b"\0" in line:
        return f"{shown}, binary data, perhaps of word2vec's binary format"
    found = other_content(line)
    return f"{shown}, which is {found}" if found else shown


def _refuse_other_encodings(
    path: str | os.PathLike[str], words: Sequence[bytes], missing: Sequence[bytes]
) -> None:
    """Raises an error if words are missing because the file's are not UTF-8.

    Args:
        path: The file.
        words: Words of the file that are not ASCII and not in the vocabulary.
        missing: Words of the vocabulary that the file does not have.
    """
    undecodable = [word for word in words if "\ufffd" in word.decode("utf-8", "replace")]
    if 2 * len(undecodable) > len(words) and not all(map(bytes.isascii, missing)):
        likely = likely_encoding(b"\n".join(undecodable))
        raise CaptionGANError(
            f"{path}: expected words in UTF-8, got {len(undecodable)} others, such as "
            f"{undecodable[0].decode(likely, 'replace')!r} in {likely}; save the file as UTF-8, "
            f"e.g. iconv -f {likely} -t UTF-8 {shlex.quote(str(path))}"
        )


def _is_number(field: bytes) -> bool:
    try:
        float(field)
    except ValueError:
        return False
    return True


def _vector(fields: Sequence[bytes], path: str | os.PathLike[str], number: int) -> np.ndarray:
    try:
        vector = np.array([float(field) for field in fields], dtype=np.float32)
    except ValueError:
        vector = np.array([np.nan], dtype=np.float32)
    if not np.isfinite(vector).all():
        raise CaptionGANError(
            f"{path}: expected finite numbers in line {number}, got something else; download the "
            "file again or remove the line"
        )
    return vector


def _fill(
    words: tuple[str, ...], vectors: Mapping[int, np.ndarray], size: int, seed: int
) -> WordVectors:
    rows = list(vectors)
    values = np.stack([vectors[row] for row in rows])
    generator = np.random.default_rng(seed)
    matrix = generator.normal(values.mean(), values.std(), (len(words), size)).astype(np.float32)
    matrix[rows] = values
    matrix[PAD_ID] = 0
    found = np.zeros(len(words), dtype=bool)
    found[rows] = True
    return WordVectors(words, matrix, found)


@keras.saving.register_keras_serializable(package="caption_gan")
class WordEmbedding(keras.layers.ReversibleEmbedding):
    """Word vectors for the input of a model and, tied, for its output.

    Adds to Keras's layer: output weights in the dtype of the features, and `assign`. Arguments are
    those of Keras's layer: `input_dim` is V, `output_dim` is E. To freeze the vectors, set
    `trainable` to false. An optimizer that trains them later must be built while `trainable` is
    true.
    """

    def logits(self, features: Any) -> Any:
        """Scores every word: the product of features with the tied output weights.

        Args:
            features: float [..., E].

        Returns:
            [..., V] in the dtype of `features`.
        """
        return ops.matmul(features, self.output_weights(features.dtype))

    def output_weights(self, dtype: Any) -> Any:
        """Returns the transposed vectors [E, V], laid out for the product with features."""
        return ops.transpose(self._matrix(dtype))

    def assign(self, matrix: Any) -> None:
        """Replaces the vectors, in a built layer or before, frozen or not.

        Args:
            matrix: float [V, E], e.g. `WordVectors.matrix`.

        Raises:
            CaptionGANError: If the matrix has another shape.
        """
        expected = (self.input_dim, self.output_dim)
        if tuple(np.shape(matrix)) != expected:
            raise CaptionGANError(
                f"word vectors: expected shape {expected} (vocabulary, embedding_size), got "
                f"{tuple(np.shape(matrix))}; set embedding_size to the size of the vectors"
            )
        self.build()
        self.embeddings.assign(matrix)

    def _matrix(self, dtype: Any) -> Any:
        self.build()
        return ops.cast(self.embeddings, dtype)
