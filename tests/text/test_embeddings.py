"""Pretrained word vectors and the word embedding layer."""

import gzip

import keras
import numpy as np
import pytest
import tensorflow as tf

from caption_gan.errors import CaptionGANError
from caption_gan.text.embeddings import WordEmbedding, load_word_vectors
from caption_gan.text.vocabulary import SPECIAL_TOKENS

VOCABULARY = [*SPECIAL_TOKENS, "a", "dog", "zebra"]
GLOVE = "the 9 9 9\ndog 1 2.5 -3\n. . . 7 7 7\na 4e0 5 6\ndog 8 8 8\n[END] 5 5 5\n"
MATRIX = np.arange(12, dtype=np.float32).reshape(4, 3)


def written(tmp_path, text, name="vectors.txt"):
    path = tmp_path / name
    path.write_bytes(text.encode())
    return path


def test_rows_by_hand(tmp_path):
    vectors = load_word_vectors(written(tmp_path, GLOVE), VOCABULARY)
    assert vectors.matrix.shape == (7, 3)
    assert vectors.matrix.dtype == np.float32
    assert vectors.matrix[4:6].tolist() == [[4, 5, 6], [1, 2.5, -3]]
    assert vectors.matrix[0].tolist() == [0, 0, 0]
    assert vectors.found.tolist() == [False, False, False, False, True, True, False]
    assert vectors.coverage() == pytest.approx(2 / 3)
    assert vectors.coverage({"a": 6, "dog": 3, "zebra": 1, "horse": 90}) == pytest.approx(0.9)
    assert vectors.coverage({}) == 0


def test_header_gzip_and_trailing_space_make_no_difference(tmp_path):
    expected = load_word_vectors(written(tmp_path, GLOVE), VOCABULARY).matrix
    word2vec = "6 3\n" + GLOVE.replace("\n", " \r\n")
    packed = tmp_path / "vectors.txt.gz"
    packed.write_bytes(gzip.compress(word2vec.encode()))
    for path in (written(tmp_path, word2vec, "word2vec.txt"), packed):
        np.testing.assert_array_equal(load_word_vectors(path, VOCABULARY).matrix, expected)


@pytest.mark.parametrize("name", ["vectors.txt", "vectors.txt.gz"])
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_a_byte_order_mark_tells_the_encoding(tmp_path, encoding, name):
    text = "dog 1 2 3\ncafé\u2028x 4 5 6\ncafé 7 8 9\n"
    path = tmp_path / name
    content = text.encode(encoding)
    path.write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    vectors = load_word_vectors(path, [*SPECIAL_TOKENS, "café", "dog"])
    assert vectors.matrix[4:].tolist() == [[7, 8, 9], [1, 2, 3]]


def test_words_in_another_encoding_are_an_error_where_they_matter(tmp_path):
    path = tmp_path / "vectors.txt"
    path.write_bytes("dog 1 2\ncafé 3 4\nStraße 5 6\n".encode("cp1252"))
    assert load_word_vectors(path, [*SPECIAL_TOKENS, "dog", "cat"]).found.tolist()[4:] == [
        True,
        False,
    ]
    with pytest.raises(CaptionGANError, match=r"2 others, such as 'café' in cp1252; .*iconv"):
        load_word_vectors(path, [*SPECIAL_TOKENS, "dog", "café"])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("<<<<<<< HEAD\ndog 1 2\n", "line 1, got '<<<<<<< HEAD', a conflict marker of Git"),
        ("dog 1 2\n=======\n", "line 2.* got 0: '=======', a conflict marker of Git"),
        ("dog 1 2\n>>>>>>> other-branch of mine\n", "line 2.*a conflict marker of Git"),
        ("version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "line 1.*git lfs pull"),
        ("<!DOCTYPE html>\n<html>\n", "line 1.*a web page"),
        ("2 3\ndog \0\1\0\2\0", "line 2.*word2vec's binary format"),
        ("no vectors\n", "line 1, got 'no vectors'; give vectors in GloVe's"),
    ],
)
def test_lines_that_are_no_vectors_are_named(tmp_path, content, words):
    with pytest.raises(CaptionGANError, match=rf"^[^\n]*{words}[^\n]*$"):
        load_word_vectors(written(tmp_path, content), VOCABULARY)


def test_a_row_of_signs_is_a_word_where_it_has_a_vector(tmp_path):
    path = written(tmp_path, "dog 1 2\n======= 3 4\n")
    assert load_word_vectors(path, [*SPECIAL_TOKENS, "=======", "dog"]).matrix[4].tolist() == [3, 4]


def test_missing_rows_have_the_statistics_of_the_found_ones(tmp_path):
    rng = np.random.default_rng(0)
    lines = [f"w{i} " + " ".join(map(str, rng.normal(3, 0.5, 50))) for i in range(100)]
    path = written(tmp_path, "\n".join(lines))
    vocabulary = [*SPECIAL_TOKENS, *(f"w{i}" for i in range(50, 150))]
    vectors = load_word_vectors(path, vocabulary, seed=1)
    drawn = vectors.matrix[~vectors.found][1:]
    assert vectors.coverage() == 0.5
    assert drawn.mean() == pytest.approx(3, abs=0.05)
    assert drawn.std() == pytest.approx(0.5, abs=0.03)
    same, other = (load_word_vectors(path, vocabulary, seed=seed).matrix for seed in (1, 2))
    np.testing.assert_array_equal(same, vectors.matrix)
    assert not np.array_equal(other, vectors.matrix)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "No such file or directory.*none to start from random vectors"),
        ("", "vocabulary's 3 words, found none"),
        ("the 1 2\ncat 3 4\n", "vocabulary's 3 words, found none"),
        ("a 1 2 3\ndog 1 2\n", "3 values in line 2.*got 2"),
        ("a 1 2 3\nzebra 1 2 3\ndog 1 2 3 4\n", "3 values in line 3.*got 4"),
        ("2 3\na 1 2 3\n\n", "3 values in line 3.*got 0"),
        ("a 1 2 3\ndog 1 x 3\n", "finite numbers in line 2"),
        ("a 1 2 3\ndog 1 nan 3\n", "finite numbers in line 2"),
        ("<!DOCTYPE\n", "word and its numbers in line 1, got '<!DOCTYPE'"),
    ],
)
def test_files_without_vectors_are_refused(tmp_path, content, message):
    path = tmp_path / "vectors.txt"
    if content is not None:
        path.write_text(content)
    with pytest.raises(CaptionGANError, match=message) as caught:
        load_word_vectors(path, VOCABULARY)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unreadable_archives_are_refused(tmp_path):
    for content in (b"no gzip", gzip.compress(GLOVE.encode() * 99)[:-12]):
        (tmp_path / "vectors.gz").write_bytes(content)
        with pytest.raises(CaptionGANError, match="whole gzip file"):
            load_word_vectors(tmp_path / "vectors.gz", VOCABULARY)
    with pytest.raises(CaptionGANError, match="unpack the archive"):
        load_word_vectors(tmp_path / "glove.zip", VOCABULARY)


def assigned():
    layer = WordEmbedding(4, 3)
    layer.assign(MATRIX)
    return layer


def test_values_by_hand():
    layer = assigned()
    assert layer(np.array([[2, 0]])).numpy().tolist() == [[[6, 7, 8], [0, 1, 2]]]
    logits = layer.logits(np.array([[[1, 0, 2]]], np.float32))
    assert logits.numpy().tolist() == [[[4, 13, 22, 31]]]


def test_config_and_file_round_trip(tmp_path):
    layer = WordEmbedding(4, 3, trainable=False, embeddings_initializer="zeros", name="words")
    assert not WordEmbedding.from_config(layer.get_config()).trainable
    assert WordEmbedding.from_config(layer.get_config()).get_config() == layer.get_config()
    assert tuple(layer.compute_output_shape((None, 7))) == (None, 7, 3)
    layer.assign(MATRIX)
    token_ids = keras.Input([2], dtype="int32")
    model = keras.Model(token_ids, layer.logits(layer(token_ids)))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(np.array([[1, 2]])), model(np.array([[1, 2]])))
    assert loaded.trainable_variables == []


def check_vectors_survive(layer):
    """Fails if building or calling the layer replaces assigned vectors."""
    layer.assign(MATRIX)
    layer.build((None, 2))
    layer(np.array([[0, 1]]))
    model = keras.Sequential([keras.Input([2], dtype="int32"), layer])
    model.compile("sgd", "mse")
    model.predict(np.array([[0, 1]]), verbose=0)
    np.testing.assert_array_equal(layer.embeddings, MATRIX)
    assert len(layer.weights) == 1


def test_assigned_vectors_survive_building():
    check_vectors_survive(WordEmbedding(4, 3))
    built = WordEmbedding(4, 3)
    built(np.array([1]))
    check_vectors_survive(built)


def test_the_check_detects_an_initialiser_that_overwrites():
    class Forgetful(WordEmbedding):
        def build(self, input_shape=None):
            super().build(input_shape)
            self.embeddings.assign(self.embeddings_initializer(self.embeddings.shape))

    with pytest.raises(AssertionError):
        check_vectors_survive(Forgetful(4, 3))


def trained(layer):
    """Takes a training step through all uses of the matrix; returns whether it changed."""
    before = np.array(layer.embeddings)
    dense = keras.layers.Dense(3)
    dense.build((None, 3))
    optimizer = keras.optimizers.SGD(0.1)
    with tf.GradientTape() as tape:
        vectors = dense(layer(np.array([1, 2])))
        loss = tf.reduce_sum(tf.square(layer.logits(vectors)))
    variables = [*dense.trainable_variables, *layer.trainable_variables]
    optimizer.apply(tape.gradient(loss, variables), variables)
    return not np.array_equal(before, layer.embeddings)


def check_frozen(layer):
    assert layer.trainable_variables == []
    assert not trained(layer)


def test_freezing_and_unfreezing():
    layer = WordEmbedding(4, 3, trainable=False)
    layer.assign(MATRIX / 10)
    check_frozen(layer)
    assert len(layer.non_trainable_variables) == 1
    layer.trainable = True
    assert len(layer.trainable_variables) == 1
    assert trained(layer)
    layer.trainable = False
    check_frozen(layer)


def test_the_check_detects_a_misspelt_freeze():
    layer = WordEmbedding(4, 3)
    layer.assign(MATRIX / 10)
    layer.trainble = False
    with pytest.raises(AssertionError):
        check_frozen(layer)
    with pytest.raises(ValueError, match="trainble"):
        WordEmbedding(4, 3, trainble=False)


def test_mixed_precision_keeps_a_float32_matrix():
    layer = WordEmbedding(4, 3, dtype="mixed_bfloat16")
    assert layer(np.array([1])).dtype == tf.bfloat16
    assert layer.embeddings.dtype == "float32"
    assert layer.logits(tf.ones([1, 3], tf.bfloat16)).dtype == tf.bfloat16
    assert layer.logits(tf.ones([1, 3])).dtype == tf.float32


def test_a_matrix_of_another_shape_is_refused():
    with pytest.raises(CaptionGANError, match=r"\(4, 3\).*got \(4, 5\); set embedding_size"):
        WordEmbedding(4, 3).assign(np.zeros((4, 5)))
