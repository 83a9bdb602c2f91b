"""The byte-pair tokenizer, compared with that of transformers.

`tools/hugging_face_golden.py` writes the files that it is compared with.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from caption_gan.errors import CaptionGANError
from caption_gan.exporting.allowed_operations import check_operations
from caption_gan.text.byte_pair import (
    BytePairTokenizer,
    build_byte_pair_vocabulary,
    read_byte_pairs,
)
from caption_gan.text.kinds import open_tokenizer
from caption_gan.text.vocabulary import SPECIAL_TOKENS, write_vocabulary
from tests.captioners import GPT2

GOLDEN = np.load(GPT2 / "expected.npz")
CAPTIONS = GOLDEN["captions"].tolist()


def tokenizer(path: Path, captions: list[str], length: int = 60, **settings) -> BytePairTokenizer:
    """With the vocabulary of some captions."""
    arguments = {"minimum_count": 1, "maximum_size": 1000, **settings}
    words = build_byte_pair_vocabulary(captions, read_byte_pairs(GPT2), **arguments)
    write_vocabulary(path / "vocabulary.txt", words)
    opened = open_tokenizer(path / "vocabulary.txt", "byte_pair", length)
    assert isinstance(opened, BytePairTokenizer)
    return opened


def pieces(opened: BytePairTokenizer, caption: str) -> list[str]:
    """Pieces between start and end, as the vocabulary file has them."""
    row = opened.tokenize([caption]).numpy()[0].tolist()
    end = row.index(2)
    assert row[0] == 1 and not any(row[end + 1 :])
    return [opened.vocabulary[token] for token in row[1:end]]


def test_pieces_are_those_of_transformers_and_become_the_caption_again(tmp_path):
    opened = tokenizer(tmp_path, CAPTIONS, 120)
    for caption, expected in zip(CAPTIONS, GOLDEN["pieces"].tolist(), strict=True):
        assert pieces(opened, caption) == expected.split(" ")
        # White space that means nothing is left out.
        spaced = caption.replace(" ", "\u2003\n")
        assert pieces(opened, f"\t{spaced} ") == expected.split(" ")
    texts = opened.detokenize(opened.tokenize(CAPTIONS)).numpy().tolist()
    assert [text.decode() for text in texts] == CAPTIONS


def test_the_pair_that_was_learnt_first_is_merged_first(tmp_path):
    write_vocabulary(tmp_path / "vocabulary.txt", [*SPECIAL_TOKENS, *"abc", "bc", "ab", "aa"])
    opened = open_tokenizer(tmp_path / "vocabulary.txt", "byte_pair", 10)
    assert isinstance(opened, BytePairTokenizer)
    assert pieces(opened, "abc") == ["a", "bc"]
    assert pieces(opened, "aabc") == ["aa", "bc"]
    assert pieces(opened, "aab") == ["a", "ab"]
    assert pieces(opened, "aaa") == ["aa", "a"]


def test_a_vocabulary_holds_what_its_captions_need_and_splits_other_words(tmp_path):
    opened = tokenizer(tmp_path, CAPTIONS[:1])
    assert pieces(opened, CAPTIONS[0]) == GOLDEN["pieces"][0].split(" ")
    assert opened.vocabulary_size < 60
    assert len({len(piece) for piece in opened.vocabulary}) > 3
    # Other captions have a piece for the beginning of "sands"; none has an "x".
    assert pieces(opened, "A sands") == ["A", "\u0120", "s", "a", "n", "d", "s"]
    assert pieces(opened, "A x") == ["A", "\u0120", "[UNK]"]
    rates = opened.out_of_vocabulary_rate(["A sands x"])
    assert float(rates) == pytest.approx(1 / 3)


def test_rare_and_late_pieces_are_left_out(tmp_path):
    captions = ["dogs dogs", "dogs owner"]
    assert pieces(tokenizer(tmp_path, captions, minimum_count=2), " owner") == list("owner")
    small = tokenizer(tmp_path, captions, maximum_size=len(SPECIAL_TOKENS) + 11)
    assert small.vocabulary_size == len(SPECIAL_TOKENS) + 11
    assert len(pieces(small, "dogs")) > 1


def test_the_unknown_token_survives_and_words_without_letters_are_not_usable(tmp_path):
    opened = tokenizer(tmp_path, CAPTIONS)
    ids = opened.tokenize(["A [UNK] dog", "[UNK]s", " . ", ""])
    assert ids.numpy()[:, :4].tolist()[2:] == [
        [1, opened.vocabulary.index("."), 2, 0],
        [1, 2, 0, 0],
    ]
    texts = [text.decode() for text in opened.detokenize(ids).numpy()]
    assert texts == ["A [UNK] dog", "[UNK]s", ".", ""]
    assert opened.usable(["A", "[UNK]", ".", ""]).numpy().tolist() == [True, False, False, False]
    assert opened.lengths(["A dog", ""]).numpy().tolist() == [4, 2]


def test_words_are_cut_as_a_whole(tmp_path):
    opened = tokenizer(tmp_path, CAPTIONS, 6)
    # The last word has three pieces, for which there is no room.
    assert pieces(opened, "A dog runs across") == ["A", "\u0120dog", "\u0120run", "s"]
    assert opened.too_long(["A dog runs", "A dog runs across"]).numpy().tolist() == [False, True]


def test_shown_tokens_are_text_if_they_are_whole_characters(tmp_path):
    opened = tokenizer(tmp_path, CAPTIONS)
    rows = [opened.vocabulary.index(piece) for piece in ("\u0120dog", "f\u00c3\u00a9", "\u00f0")]
    rows += [0, 2]
    shown = [text.decode() for text in opened.token_strings(rows).numpy()]
    assert shown == ["dog", "f\u00e9", "\u00f0", "[PAD]", "[END]"]
    # Half a character: decoded text is valid whatever the tokens.
    assert opened.detokenize([rows[:1] + rows[2:3]]).numpy()[0].decode() == "dog\ufffd"


def test_it_is_served_with_allowed_operations(tmp_path):
    opened = tokenizer(tmp_path, CAPTIONS, 120)
    module = tf.Module()
    module.tokenizer = opened
    strings = tf.TensorSpec([None], tf.string)
    module.call = tf.function(
        lambda captions: opened.detokenize(opened.tokenize(captions)), [strings]
    )
    tf.saved_model.save(module, str(tmp_path / "model"))
    check_operations(tmp_path / "model")
    loaded = tf.saved_model.load(str(tmp_path / "model"))
    assert [text.decode() for text in loaded.call(CAPTIONS).numpy()] == CAPTIONS
    assert loaded.call([]).shape == (0,)


def folder(path: Path) -> Path:
    return Path(shutil.copytree(GPT2, path / "folder"))


def test_either_form_of_files_is_read(tmp_path):
    path = folder(tmp_path)
    expected = read_byte_pairs(path)
    for name in ("vocab.json", "merges.txt"):
        (path / name).unlink()
    assert read_byte_pairs(path) == expected


def no_files(path: Path) -> None:
    for name in ("vocab.json", "merges.txt", "tokenizer.json"):
        (path / name).unlink()


def no_bytes(path: Path) -> None:
    (path / "vocab.json").write_text(json.dumps({"a": 0, "b": 1}))


def damaged(path: Path) -> None:
    (path / "merges.txt").write_text("a b c\n")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (no_files, "vocab.json cannot be read"),
        (no_bytes, "lacks 3[0-9]+ pieces"),
        (damaged, "no byte-pair tokenizer"),
    ],
)
def test_a_folder_that_cannot_be_used_is_refused_in_one_line(make, words, tmp_path):
    make(folder(tmp_path))
    with pytest.raises(CaptionGANError, match=rf"^[^\n]*{words}[^\n]*$"):
        read_byte_pairs(tmp_path / "folder")


def test_a_vocabulary_of_another_kind_is_refused(tmp_path):
    write_vocabulary(tmp_path / "vocabulary.txt", [*SPECIAL_TOKENS, "a", "\u4e2d"])
    with pytest.raises(CaptionGANError, match="pieces of GPT-2's kind"):
        open_tokenizer(tmp_path / "vocabulary.txt", "byte_pair", 10)
