"""The tokenizer: by hand, on random text, and in a SavedModel in a fresh process."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import example, given, settings
from hypothesis import strategies as st

from caption_gan.errors import CaptionGANError
from caption_gan.text.tokenizer import Tokenizer
from caption_gan.text.vocabulary import SPECIAL_TOKENS, Kind, write_vocabulary

WORD_LIST = (
    "a dog cat , . running t-shirt dog's ( ) 3.5 % [ ] end unk ! pad start 5 - ' é x 2nd one "
    "num-tk bracket-tk equat-tk"
)
PIECE_LIST = (
    "a dog , . run ##ning ##s t ##- ##shirt [ ] end unk é x 3 ##. ##5 ( ) ' ! ##é "
    "num-tk bracket-tk equat-tk - % 5"
)
WORDS, PIECES = WORD_LIST.split(), PIECE_LIST.split()


def ids(*words):
    return [([*SPECIAL_TOKENS, *WORDS]).index(word) for word in words]


def decoded(tensor):
    return [text.decode() for text in tensor.numpy().tolist()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vocabularies")
    write_vocabulary(folder / "word.txt", [*SPECIAL_TOKENS, *WORDS])
    write_vocabulary(folder / "wordpiece.txt", [*SPECIAL_TOKENS, *PIECES])
    return folder


@pytest.fixture(scope="module")
def tokenizers(folder):
    return {kind: Tokenizer(folder / f"{kind}.txt", kind, 8) for kind in ("word", "wordpiece")}


@pytest.fixture(scope="module")
def tokenizer(tokenizers):
    return tokenizers["word"]


def test_ids_by_hand(tokenizer):
    token_ids = tokenizer.tokenize(tf.constant(["A dog, running.", "", "a zebra"]))
    assert token_ids.dtype == tf.int32
    assert token_ids.numpy().tolist() == [
        [1, 4, 5, 7, 9, 8, 2, 0],
        [1, 2, 0, 0, 0, 0, 0, 0],
        [1, 4, 3, 2, 0, 0, 0, 0],
    ]
    assert tokenizer.special_tokens == (0, 1, 2, 3)
    assert tokenizer.vocabulary_size == len(WORDS) + 4


def test_long_captions_are_cut_before_the_end_token(tokenizer):
    captions = ["a dog a cat a dog", "a dog a cat a dog !"]
    assert tokenizer.tokenize(captions).numpy().tolist() == [[1, 4, 5, 4, 6, 4, 5, 2]] * 2
    assert tokenizer.too_long(captions).numpy().tolist() == [False, True]


def test_detokenize_stops_at_the_first_end_and_attaches_punctuation(tokenizer):
    a, dog, comma, running, point, start, end, pad = 4, 5, 7, 9, 8, 1, 2, 0
    token_ids = [
        [start, a, dog, comma, running, point, end, dog],
        [a, end, a, end, dog, pad, pad, pad],
        [end, a, a, a, a, a, a, a],
        [start, a, dog, a, dog, a, dog, a],
        [start, *ids("(", "dog", ")", "[", "end", "]"), end],
    ]
    assert decoded(tokenizer.detokenize(tf.constant(token_ids))) == [
        "a dog, running.",
        "a",
        "",
        "a dog a dog a dog a",
        "(dog) [ end ]",
    ]
    names = tokenizer.token_strings([[start, a, 3, end, pad]]).numpy().tolist()
    assert names == [[b"[START]", b"a", b"[UNK]", b"[END]", b"[PAD]"]]


@pytest.mark.parametrize(
    ("caption", "words"),
    [
        ("A DOG", ["a", "dog"]),
        ("\ufeffa\u00a0\u00addog\n\t", ["a", "dog"]),
        ("\uff41\u3000\uff44og", ["a", "dog"]),
        ("e\u0301 É", ["é", "é"]),
        ("dog\u2019s dog 's", ["dog's", "dog's"]),
        ("T\u2010Shirt", ["t-shirt"]),
        ("'dog' - 3.5%", ["'", "dog", "'", "-", "3.5", "%"]),
        ("2nd (a.dog)!", ["2nd", "(", "a", ".", "dog", ")"]),
        ("[END] [PAD] ", ["[", "end", "]", "[", "pad", "]"]),
        ("[start][Unk]", ["[", "start", "]", "[UNK]"]),
    ],
)
def test_normalisation(tokenizer, caption, words):
    row = tokenizer.tokenize([caption]).numpy()[0].tolist()
    assert row[: len(words) + 2] == [1, *ids(*words[:6]), 2]


@pytest.mark.parametrize("kind", ["word", "wordpiece"])
@pytest.mark.parametrize(
    ("caption", "words", "decoded_caption"),
    [
        ("a NUM-TK%.", "a num-tk % .", "a num-tk%."),
        ("a NUM-TK-x dog", "a num-tk - x dog", "a num-tk - x dog"),
        ("x-NUM-TK xNUM-TK5", "x - num-tk x num-tk 5", "x - num-tk x num-tk 5"),
        ("(NUM-TK.NUM-TK)", "( num-tk . num-tk )", "(num-tk. num-tk)"),
        ("dog BRACKET-TK .", "dog bracket-tk .", "dog bracket-tk."),
        ("x, EQUAT-TK, a", "x , equat-tk , a", "x, equat-tk, a"),
        ("EQUAT\u2010TKBRACKET-TK", "equat-tk bracket-tk", "equat-tk bracket-tk"),
        ("BRACKET-TK 's dog", "bracket-tk ' [UNK] dog", "bracket-tk ' [UNK] dog"),
    ],
)
def test_a_placeholder_is_one_token_whatever_surrounds_it(
    tokenizers, kind, caption, words, decoded_caption
):
    tokenizer = tokenizers[kind]
    token_ids = tokenizer.tokenize([caption])
    names = [name.decode() for name in tokenizer.token_strings(token_ids)[0].numpy()]
    assert names[1 : names.index("[END]")] == words.split()
    assert decoded(tokenizer.detokenize(token_ids)) == [decoded_caption]


def test_usable_captions_have_a_known_word(tokenizer):
    captions = ["a zebra", "", " \u200b ", "собака, .", "...", "[UNK]", "犬 dog"]
    expected = [True, False, False, False, False, False, True]
    assert tokenizer.usable(captions).numpy().tolist() == expected


def test_out_of_vocabulary_rate(tokenizers):
    rate = tokenizers["word"].out_of_vocabulary_rate(["a zebra,", "dog"])
    assert float(rate) == pytest.approx(1 / 4)
    assert float(tokenizers["word"].out_of_vocabulary_rate(["", ""])) == 0
    # One unknown word of three; the other two have five pieces.
    rate = tokenizers["wordpiece"].out_of_vocabulary_rate(["running t-shirt zebra"])
    assert float(rate) == pytest.approx(1 / 3)


def test_pieces_by_hand(tokenizers):
    tokenizer = tokenizers["wordpiece"]
    token_ids = tokenizer.tokenize(["Dogs running", "zebra 3.5"])
    assert tokenizer.token_strings(token_ids).numpy().tolist() == [
        [b"[START]", b"dog", b"##s", b"run", b"##ning", b"[END]", b"[PAD]", b"[PAD]"],
        [b"[START]", b"[UNK]", b"3", b"##.", b"##5", b"[END]", b"[PAD]", b"[PAD]"],
    ]
    assert decoded(tokenizer.detokenize(token_ids)) == ["dogs running", "[UNK] 3.5"]
    # A generator may start a caption with a continuation piece.
    assert decoded(tokenizer.detokenize([[9, 5, 10, 2]])) == ["ning dogs"]


def test_words_of_several_pieces_are_cut_as_a_whole(tokenizers):
    captions = ["dogs running t-shirt", "dogs dogs dogs", "dogs a dogs a dogs"]
    token_ids = tokenizers["wordpiece"].tokenize(captions)
    assert decoded(tokenizers["wordpiece"].detokenize(token_ids)) == [
        "dogs running",
        "dogs dogs dogs",
        "dogs a dogs a",
    ]
    assert tokenizers["wordpiece"].too_long(captions).numpy().tolist() == [True, False, True]


@pytest.mark.parametrize("kind", ["word", "wordpiece"])
def test_tf_data_tf_function_and_eager_agree_for_any_shape(tokenizers, kind):
    tokenizer = tokenizers[kind]
    captions = [["a dog", "running, a"], ["", "a dog's t-shirt"]]  # [B, K]
    eager = tokenizer.tokenize(captions)
    assert eager.shape == (2, 2, 8)
    data = tf.data.Dataset.from_tensor_slices(captions).map(tokenizer.tokenize).batch(2)
    assert data.element_spec.shape.as_list() == [None, 2, 8]
    np.testing.assert_array_equal(next(iter(data)), eager)
    there_and_back = tf.function(lambda text: tokenizer.detokenize(tokenizer.tokenize(text)))
    assert there_and_back(captions).numpy().tolist() == tokenizer.detokenize(eager).numpy().tolist()
    assert tokenizer.tokenize("a dog").shape == (8,)
    assert tokenizer.usable(captions).numpy().tolist() == [[True, True], [False, True]]
    assert tokenizer.too_long(captions).shape == (2, 2)
    nothing = tf.constant([], tf.string)
    assert tokenizer.tokenize(nothing).shape == (0, 8)
    assert tokenizer.detokenize(tf.zeros([0, 8], tf.int32)).shape == (0,)
    assert tokenizer.usable(nothing).shape == tokenizer.too_long(nothing).shape == (0,)


any_text = st.text(max_size=40)
likely_text = st.lists(
    st.sampled_from([*WORDS, *SPECIAL_TOKENS, " ", "##", "'s", "[", "\u00b4"])
).map(" ".join)
glued_text = st.lists(st.sampled_from([*WORDS, *SPECIAL_TOKENS, " ", "\u0301"])).map("".join)


@pytest.mark.parametrize("kind", ["word", "wordpiece"])
@settings(max_examples=50, deadline=None)
@given(captions=st.lists(any_text | likely_text | glued_text, min_size=1, max_size=8))
@example(captions=["\x00", "[ unk ]", "( \u00b4", "a 's 's", "[[UNK]]"])
def test_any_text_round_trips(tokenizers, kind, captions):
    tokenizer = tokenizers[kind]
    token_ids = tokenizer.tokenize(captions)
    for row in token_ids.numpy().tolist():
        special = tokenizer.special_tokens
        end = row.index(special.end)
        assert row[0] == special.start
        assert row[end + 1 :] == [special.pad] * (len(row) - end - 1)
        assert all(token_id >= special.unknown for token_id in row[1:end])
    text = tokenizer.detokenize(token_ids)
    again = tokenizer.tokenize(text)
    assert tokenizer.detokenize(again).numpy().tolist() == text.numpy().tolist()
    np.testing.assert_array_equal(again, token_ids)
    assert len(tokenizer.usable(captions)) == len(tokenizer.too_long(captions)) == len(captions)


@settings(max_examples=20, deadline=None)
@given(captions=st.lists(st.binary(max_size=20), min_size=1, max_size=3))
def test_invalid_utf8_is_accepted(tokenizer, captions):
    token_ids = tokenizer.tokenize(tf.constant(captions, tf.string))
    assert token_ids.shape == (len(captions), tokenizer.sequence_length)
    tokenizer.detokenize(token_ids).numpy()[0].decode()


def test_invalid_arguments_are_refused(folder):
    with pytest.raises(CaptionGANError, match=r"sequence_length.*at least 3.*got 2"):
        Tokenizer(folder / "word.txt", "word", 2)
    with pytest.raises(CaptionGANError, match=r"wordpiece\.txt.*kind 'word'.*'wordpiece'"):
        Tokenizer(folder / "wordpiece.txt", "word", 8)
    with pytest.raises(CaptionGANError, match="expected 'word' or 'wordpiece', got 'bpe'"):
        Tokenizer(folder / "word.txt", "bpe", 8)  # type: ignore[arg-type]


LOAD = """
import sys
import tensorflow as tf
import tensorflow_text
loaded = tf.saved_model.load(sys.argv[1])
for kind in ("word", "wordpiece"):
    token_ids = loaded.signatures[kind](tf.constant(["A dog's t-shirt, running!"]))
    print(token_ids["token_ids"].numpy().tolist(), token_ids["captions"].numpy()[0].decode())
"""


def test_saved_model_in_a_fresh_process(tmp_path):
    captions = ["A dog's t-shirt, running!"]
    expected, signatures, module = "", {}, tf.Module()
    vocabularies: dict[Kind, list[str]] = {"word": WORDS, "wordpiece": PIECES}
    for kind, words in vocabularies.items():
        write_vocabulary(tmp_path / f"{kind}.txt", [*SPECIAL_TOKENS, *words])
        tokenizer = Tokenizer(tmp_path / f"{kind}.txt", kind, 12)
        setattr(module, kind, tokenizer)
        token_ids = tokenizer.tokenize(captions)
        text = decoded(tokenizer.detokenize(token_ids))[0]
        expected += f"{token_ids.numpy().tolist()} {text}\n"

        def serve(text, tokenizer=tokenizer):
            token_ids = tokenizer.tokenize(text)
            return {"token_ids": token_ids, "captions": tokenizer.detokenize(token_ids)}

        signatures[kind] = tf.function(serve).get_concrete_function(
            tf.TensorSpec([None], tf.string)
        )
    tf.saved_model.save(module, str(tmp_path / "model"), signatures=signatures)
    for kind in signatures:
        (tmp_path / f"{kind}.txt").unlink()
    assets = {asset.name for asset in (tmp_path / "model" / "assets").iterdir()}
    assert assets == {"word.txt", "wordpiece.txt"}

    done = subprocess.run(
        [sys.executable, "-c", LOAD, str(tmp_path / "model")],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == expected

    definition = signatures["wordpiece"].graph.as_graph_def()
    nodes = [*definition.node, *(n for f in definition.library.function for n in f.node_def)]
    operations = {node.op for node in nodes}
    assert any("Wordpiece" in operation for operation in operations)
    # Python operations cannot be exported; servers up to 2.19 do not have the others.
    banned = ("PyFunc", "RoundRobinTrim", "RoundRobinGenerateMasks", "Utf8Binarize")
    assert not [operation for operation in operations if operation.endswith(banned)]
