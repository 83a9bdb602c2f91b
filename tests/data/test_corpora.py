"""Text corpora: reading, tokenizing and adding to batches."""

import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from caption_gan.config.data import DataConfig
from caption_gan.config.models import EncoderConfig
from caption_gan.data.corpora import check_corpora, read_corpora, tokenize_corpora
from caption_gan.data.pipeline import Pipeline
from caption_gan.data.skips import Skips
from caption_gan.errors import CaptionGANError
from caption_gan.text.tokenizer import Tokenizer
from caption_gan.text.vocabulary import write_vocabulary


@pytest.fixture
def tokenizer(tmp_path) -> Tokenizer:
    path = tmp_path / "vocabulary.txt"
    write_vocabulary(path, ["[PAD]", "[START]", "[END]", "[UNK]", "a", "dog", "runs"])
    return Tokenizer(path, "word", 5)


def write(path: Path, content: str) -> str:
    path.write_text(content, encoding="utf-8")
    return str(path)


def test_read_text_and_json_lines(tmp_path):
    lines = write(tmp_path / "a.txt", 'A dog .\n\n  {"text": "as it stands"}\n')
    objects = write(
        tmp_path / "b.jsonl",
        '{"caption": "One ü"}\n"Two"\n{"sentence": "Three"}\n{"text": 4}\n{"te\n\n{"id": 5}\n',
    )
    skips = Skips()
    assert list(read_corpora([lines, objects], skips)) == [
        *("A dog .", '{"text": "as it stands"}'),
        *("One ü", "Two", "Three"),
    ]
    (line,) = skips.lines()
    assert line.startswith("3 lines have no caption or text or sentence")
    assert line.endswith("""line 4 ('{"text": 4}'), line 5 ('{"te'), line 7 ('{"id": 5}')""")


@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
@pytest.mark.parametrize("indent", [None, 2])
def test_a_json_array_of_sentences_is_read(tmp_path, name, indent):
    skips = Skips()
    path = write(tmp_path / name, json.dumps(["One", {"text": "Two"}, None, 3], indent=indent))
    assert list(read_corpora([path], skips)) == ["One", "Two"]
    (line,) = skips.lines()
    assert line.endswith("number 3 (null), number 4 (3)")
    assert list(read_corpora([write(tmp_path / name, "\n")], skips)) == []
    with pytest.raises(CaptionGANError, match="is not JSON, or is truncated"):
        list(read_corpora([write(tmp_path / name, '["One",\n"Two"')], skips))


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl"])
def test_corpora_are_read_in_their_encoding(tmp_path, name):
    sentences = ["une tasse de café", "ein Hund\u2028läuft"]
    lines = [
        json.dumps(text, ensure_ascii=False) if name == "a.jsonl" else text for text in sentences
    ]
    path = tmp_path / name
    for encoding in ("utf-8", "utf-8-sig", "utf-16", "utf-32"):
        path.write_bytes("\r\n".join(lines).encode(encoding))
        assert list(read_corpora([str(path)], Skips(), "cp1252")) == sentences
    path.write_bytes(lines[0].encode("cp1252"))
    assert list(read_corpora([str(path)], Skips(), "cp1252")) == sentences[:1]
    with pytest.raises(CaptionGANError, match=r"line 1: .* cp1252, .*café.*--data.encoding=cp1252"):
        list(read_corpora([str(path)], Skips()))


def test_the_check_reads_to_the_end(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"a dog\n" * 300_000 + b"caf\xe9\n")
    check_corpora([str(path)], "cp1252")
    with pytest.raises(CaptionGANError, match=r"line 300001: 'caf.xe9' .* cp1252"):
        check_corpora([str(path)], "utf-8")


def test_error_names_a_missing_file(tmp_path):
    with pytest.raises(CaptionGANError, match=r"data\.corpora: .*none\.txt is not a file"):
        list(read_corpora([str(tmp_path / "none.txt")], Skips()))


def test_sentences_a_generator_cannot_generate_are_skipped_and_counted(tmp_path, tokenizer):
    path = write(tmp_path / "a.txt", "a dog runs\na cat runs\ndog a dog a\nA Dog\n")
    skips = Skips()
    token_ids = tokenize_corpora([path], tokenizer, skips)
    assert token_ids.tolist() == [[1, 4, 5, 6, 2], [1, 4, 5, 2, 0]]
    assert skips.lines() == [
        "1 sentences of data.corpora are too long: dog a dog a",
        "1 sentences of data.corpora have unknown words: a cat runs",
    ]
    with pytest.raises(CaptionGANError, match="no sentence that has only known words"):
        tokenize_corpora([write(tmp_path / "b.txt", "cats\n")], tokenizer, Skips())


def test_corpus_sentences_vary_and_depend_on_the_seed(tokenizer):
    pipeline = Pipeline(DataConfig(), EncoderConfig(), None, tokenizer)
    batches = tf.data.Dataset.from_tensors({"token_ids": tf.zeros([4, 2, 5], tf.int32)}).repeat(3)
    sentences = np.arange(20 * 5, dtype=np.uint16).reshape(20, 5)

    def chosen(seed):
        tf.random.set_seed(0)
        with_corpus = pipeline.with_corpus(batches, sentences, 2, seed)
        return [batch["corpus_token_ids"] for batch in with_corpus.as_numpy_iterator()]

    first = chosen(1)
    assert all(ids.shape == (4, 2, 5) and ids.dtype == np.int32 for ids in first)
    assert all(row.tolist() in sentences.tolist() for ids in first for row in ids.reshape(-1, 5))
    assert not np.array_equal(first[0], first[1])
    assert np.array_equal(first, chosen(1))
    assert not np.array_equal(first, chosen(2))
