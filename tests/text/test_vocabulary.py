"""Building a vocabulary, and reading and writing its file."""

import pytest

from caption_gan.errors import CaptionGANError
from caption_gan.text.vocabulary import (
    SPECIAL_TOKENS,
    build_vocabulary,
    count_words,
    read_vocabulary,
    write_vocabulary,
)

CAPTIONS = ["A dog runs .", "a dog, a cat", "The cat's cat [UNK]", "a zebra"]


def test_counts_by_hand():
    counts = {"a": 4, "dog": 2, "runs": 1, ".": 1, ",": 1, "cat": 2, "the": 1, "cat's": 1}
    assert count_words(CAPTIONS) == counts | {"zebra": 1}
    assert count_words([]) == {}
    assert count_words(["a \ud800 b"]) == {"a": 1, "b": 1}


def test_counts_do_not_depend_on_the_batch_size(monkeypatch):
    expected = count_words(CAPTIONS)
    monkeypatch.setattr("caption_gan.text.vocabulary._COUNTED_AT_ONCE", 3)
    assert count_words(iter(CAPTIONS)) == expected


def test_words_are_ordered_by_frequency_then_alphabet():
    words = build_vocabulary(CAPTIONS, "word", minimum_count=2, maximum_size=100)
    assert words == [*SPECIAL_TOKENS, "a", "cat", "dog"]
    assert build_vocabulary(CAPTIONS, "word", 1, 8)[4:] == ["a", "cat", "dog", ","]


def test_pieces_cover_unseen_words():
    captions = ["running walking talking"] * 20 + ["walk talk run"] * 20
    words = build_vocabulary(captions, "wordpiece", minimum_count=2, maximum_size=60)
    assert tuple(words[:4]) == SPECIAL_TOKENS
    assert len(words) == len(set(words)) <= 60
    assert set("runigwalktg") <= set(words)
    assert {"##" + character for character in "runigwalktg"} <= set(words)
    assert any(len(word) > 3 and word not in SPECIAL_TOKENS for word in words)
    assert words == build_vocabulary(reversed(captions), "wordpiece", 2, 60)


NORMALISED = [
    *["NUM-TK% of NUM-TK-dimensional vectors"] * 6,
    *["tasks BRACKET-TK .", "number of tasks", "bracket-task", "t-shirt num tk"] * 4,
    "EQUAT-TK",
]


def test_placeholders_are_words_and_the_words_around_them_are_counted():
    assert count_words(NORMALISED) == {
        **{"num-tk": 12, "%": 6, "of": 10, "-": 6, "dimensional": 6, "vectors": 6},
        **{"tasks": 8, "bracket-tk": 4, ".": 4, "number": 4, "equat-tk": 1},
        **{"bracket-task": 4, "t-shirt": 4, "num": 4, "tk": 4},
    }
    words = build_vocabulary(NORMALISED, "word", minimum_count=1, maximum_size=100)
    assert {"num-tk", "bracket-tk", "equat-tk"} < set(words)


def test_rare_placeholders_are_single_pieces():
    words = build_vocabulary(NORMALISED, "wordpiece", minimum_count=4, maximum_size=60)
    assert words[:7] == [*SPECIAL_TOKENS, "num-tk", "bracket-tk", "equat-tk"]
    assert build_vocabulary(["NUM-TK"] * 9 + ["a"] * 9, "wordpiece", 1, 9)[4:] == [
        "num-tk",
        "a",
        "##a",
    ]
    assert not any("num-tk" in word for word in build_vocabulary(CAPTIONS, "wordpiece", 1, 99))


@pytest.mark.parametrize("maximum_size", range(24, 40, 3))
def test_pieces_never_exceed_the_size_and_keep_all_characters(maximum_size):
    captions = ["running walking"] * 5 + ["walk run again"] * 3
    words = build_vocabulary(captions, "wordpiece", 1, maximum_size)
    assert len(words) <= maximum_size
    assert set("runigwalk") <= set(words)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((CAPTIONS, "word", 50, 100), "two words seen 50 times or more, got 0 of 9"),
        ((["dog", "dog", ""], "word", 1, 100), "got 1 of 1 distinct words.*minimum_count"),
        (([], "wordpiece", 1, 100), "got 0 of 0"),
        ((CAPTIONS, "word", 1, 5), "maximum_size: expected at least 6"),
        ((CAPTIONS, "wordpiece", 1, 10), "maximum_size: expected at least .* characters"),
        ((CAPTIONS, "bpe", 1, 100), "expected 'word' or 'wordpiece', got 'bpe'"),
    ],
)
def test_captions_without_a_vocabulary_are_refused(arguments, message):
    with pytest.raises(CaptionGANError, match=message):
        build_vocabulary(*arguments)


def test_write_and_read_round_trip(tmp_path):
    words = [*SPECIAL_TOKENS, "a", "é", "##s", ",", "犬"]
    write_vocabulary(tmp_path / "vocabulary.txt", words)
    assert (tmp_path / "vocabulary.txt").read_bytes().decode().split("\n") == [*words, ""]
    assert read_vocabulary(tmp_path / "vocabulary.txt") == words
    assert [path.name for path in tmp_path.iterdir()] == ["vocabulary.txt"]


SPECIAL = "[PAD]\n[START]\n[END]\n[UNK]\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "No such file or directory.*run directory"),
        ("", r"first four lines to be \[PAD\] \[START\] \[END\] \[UNK\], got an empty file"),
        ("a\ndog\ncat\nb\nc\n", r"first four lines .* got 'a' 'dog' 'cat' 'b'"),
        ("[PAD]\n[END]\n[START]\n[UNK]\na\nb\n", "first four lines"),
        (SPECIAL, "at least two words after the special tokens, got 0"),
        (SPECIAL + "dog\n", "at least two words after the special tokens, got 1"),
        (SPECIAL + "a\ndog\na\n", "'a' in lines 5 and 7"),
        (SPECIAL + "a\n\ndog\n", "got '' in line 6"),
        (SPECIAL + "a\nhot dog\n", "got 'hot dog' in line 6"),
        ((SPECIAL + "a\nb\n").replace("\n", "\r\n"), r"Unix line ends, got '\[PAD\]\\r' in line 1"),
        (b"\xff\xfe", "UTF-8"),
    ],
)
def test_invalid_vocabulary_files_are_refused(tmp_path, content, message):
    path = tmp_path / "vocabulary.txt"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(CaptionGANError, match=message) as caught:
        read_vocabulary(path)
    assert str(path) in str(caught.value)
    assert "expected" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_invalid_vocabulary_is_not_written(tmp_path):
    with pytest.raises(CaptionGANError, match="at least two words"):
        write_vocabulary(tmp_path / "vocabulary.txt", [*SPECIAL_TOKENS, "dog"])
    with pytest.raises(CaptionGANError, match="cannot be written"):
        write_vocabulary(tmp_path / "missing" / "vocabulary.txt", [*SPECIAL_TOKENS, "a", "dog"])
    assert list(tmp_path.iterdir()) == []
