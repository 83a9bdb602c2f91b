"""GPT-2 from a Hugging Face folder, compared with transformers' own logits and tokens.

`tools/hugging_face_golden.py` writes the files that it is compared with.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from caption_gan.config.models import GeneratorConfig
from caption_gan.errors import CaptionGANError
from caption_gan.models.decoding.decoder import DecodingOptions
from caption_gan.models.decoding.sampling import greedy
from caption_gan.models.encoders.encoder import Regions
from caption_gan.models.generators.generator import build_generator
from caption_gan.models.generators.gpt2 import GPT2Generator
from caption_gan.models.hugging_face.gpt2 import load_gpt2, with_gpt2_sizes
from caption_gan.text.byte_pair import read_byte_pairs
from caption_gan.text.vocabulary import END_ID, PAD_ID, SPECIAL_TOKENS, START_ID, UNK_ID
from tests.captioners import GPT2

pytest.importorskip("safetensors", reason="safetensors is not installed (extra `hub`)")

GOLDEN = np.load(GPT2 / "expected.npz")
PAIRS = read_byte_pairs(GPT2)
END = "<|endoftext|>"
# All pieces in another order than the folder's.
PIECES = sorted(PAIRS.ids.keys() - {END})
VOCABULARY = (*SPECIAL_TOKENS, *PIECES)
# Rows of the vocabulary in the order of the folder's.
ROWS = [PAIRS.ids[piece] for piece in (END, *PIECES)]
ID_OF = {PAIRS.ids[END]: END_ID} | {
    PAIRS.ids[piece]: len(SPECIAL_TOKENS) + index for index, piece in enumerate(PIECES)
}
REGIONS = Regions(tf.random.stateless_normal([2, 4, 5], [0, 1]))
NOISE = tf.ones([2, 1, 3])


def generator(image_input: str, vocabulary: tuple[str, ...] = VOCABULARY) -> GPT2Generator:
    config = GeneratorConfig(
        kind="gpt2", weights=str(GPT2), image_input=image_input, prefix_length=3, noise_size=3
    )
    model = build_generator(with_gpt2_sizes(config, 12), len(vocabulary), (4, 5))
    assert isinstance(model, GPT2Generator)
    load_gpt2(model, GPT2, vocabulary)
    if image_input == "prefix":  # The image's vectors are those of the golden file.
        model.prefix = lambda mean: tf.constant(GOLDEN["prefix"])
    return model


def ids(tokens: np.ndarray, first: int) -> np.ndarray:
    """The folder's token ids as those of the vocabulary; the first one is the start token."""
    found = np.vectorize(ID_OF.__getitem__)(tokens)
    if first:
        found[:, 0] = first
    return found[:, None].astype(np.int32)  # [B, 1, T]


@pytest.mark.parametrize(
    ("image_input", "expected"), [("cross_attention", "plain"), ("prefix", "prefixed")]
)
def test_logits_and_greedy_tokens_are_those_of_transformers(image_input, expected):
    model = generator(image_input)
    memory = model.encode(REGIONS)
    logits = model.teacher_forcing(ids(GOLDEN["token_ids"], START_ID), memory, NOISE)
    assert np.abs(GOLDEN[f"{expected}_logits"]).max() > 1
    np.testing.assert_allclose(
        np.array(logits)[:, 0][..., [END_ID, *range(len(SPECIAL_TOKENS), len(VOCABULARY))]],
        GOLDEN[f"{expected}_logits"][..., ROWS],
        atol=1e-4,
    )
    decoded = greedy(model, REGIONS, DecodingOptions(10))
    np.testing.assert_array_equal(
        decoded.token_ids[..., :-1], ids(GOLDEN[f"{expected}_greedy"][:, :8], 0)
    )


def test_a_cut_vocabulary_has_the_same_logits_for_its_pieces():
    kept = [token for row in GOLDEN["token_ids"] for token in row if token != PAIRS.ids[END]]
    name = {row: piece for piece, row in PAIRS.ids.items()}
    pieces = sorted({name[token] for token in kept})
    cut = (*SPECIAL_TOKENS, *pieces)
    model, whole = generator("cross_attention", cut), generator("cross_attention")
    token_ids = [
        [[1, *(cut.index(name[token]) for token in row[1:])]] for row in GOLDEN["token_ids"]
    ]
    found = model.teacher_forcing(tf.constant(token_ids), model.encode(REGIONS), NOISE)
    expected = whole.teacher_forcing(
        ids(GOLDEN["token_ids"], START_ID), whole.encode(REGIONS), NOISE
    )
    rows = [VOCABULARY.index(piece) for piece in cut]
    np.testing.assert_allclose(found, np.array(expected)[..., rows], atol=1e-5)
    assert model.embedding.embeddings.shape == (len(cut), 8)


def test_special_tokens_begin_with_vectors_of_gpt2():
    table = np.array(generator("prefix").embedding.embeddings)
    np.testing.assert_array_equal(table[START_ID], table[END_ID])
    np.testing.assert_array_equal(table[PAD_ID], table[UNK_ID])
    # Without a logit that stands out, as a vector of zeros would have one.
    mean = np.mean(table[[END_ID, *range(4, len(table))]], axis=0)
    np.testing.assert_allclose(table[PAD_ID], mean, atol=1e-6)


def changed(**settings):
    def change(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, **settings}))

    return change


def other_tokenizer(folder: Path) -> None:
    ids = json.loads((folder / "vocab.json").read_text())
    (folder / "vocab.json").write_text(json.dumps({**ids, "more": len(ids)}))


MISTAKES = {
    "no config": (lambda folder: (folder / "config.json").unlink(), "config.json cannot be read"),
    "no weights": (
        lambda folder: (folder / "model.safetensors").unlink(),
        "model.safetensors cannot be read",
    ),
    "another network": (changed(model_type="bert"), "model_type is 'bert', expected 'gpt2'"),
    "another activation": (changed(activation_function="relu"), "activation_function is 'relu'"),
    "other shape": (
        changed(n_embd=12),
        r"transformer.wte.weight gives \(330, 8\), but config.json expects \(330, 12\)",
    ),
    "more layers": (changed(n_layer=3), "has no transformer.h.2.attn.c_attn.weight"),
    "odd width": (changed(n_inner=20), "n_inner is 20, expected a multiple of n_embd, 8"),
    "another tokenizer": (other_tokenizer, "the tokenizer has 331 pieces, the weights have 330"),
    "no end of text": (changed(eos_token_id=None), "eos_token_id is None, expected the row"),
    "fewer positions": (changed(n_positions=12), r"wpe.weight gives \(20, 8\)"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_folder_that_cannot_be_used_is_refused_in_one_line(mistake, tmp_path):
    make, words = MISTAKES[mistake]
    folder = Path(shutil.copytree(GPT2, tmp_path / "folder"))
    make(folder)
    config = GeneratorConfig(kind="gpt2", weights=str(folder), prefix_length=3)
    with pytest.raises(CaptionGANError, match=rf"^[^\n]*{words}[^\n]*$"):
        with_gpt2_sizes(config, 12)


def test_captions_must_fit_the_positions():
    config = GeneratorConfig(kind="gpt2", weights=str(GPT2), prefix_length=3)
    assert with_gpt2_sizes(config, 18).positions == 20
    with pytest.raises(CaptionGANError, match=r"sequence_length is 19.*set it to 18 or less"):
        with_gpt2_sizes(config, 19)
