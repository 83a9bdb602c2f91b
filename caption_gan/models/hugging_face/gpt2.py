"""GPT-2 from Hugging Face folders: sizes, and weights for the pieces of a vocabulary.

V vocabulary, H hidden, L length of the longest text.
"""

import dataclasses
from pathlib import Path

import numpy as np

from caption_gan.config.models import GeneratorConfig
from caption_gan.errors import CaptionGANError
from caption_gan.models.generators.gpt2 import GPT2Generator
from caption_gan.models.generators.token_attention import TokenAttention
from caption_gan.models.hugging_face.weights_folder import CONFIG, WeightsFolder
from caption_gan.text.byte_pair import read_byte_pairs
from caption_gan.text.vocabulary import END_ID, SPECIAL_TOKENS, START_ID

# What the generator computes; a network with other values would give other logits.
_EXPECTED = {
    "model_type": ("gpt2",),
    # Both are GELU with the approximation by tanh.
    "activation_function": ("gelu_new", "gelu_pytorch_tanh"),
    "layer_norm_epsilon": (1e-5,),
    "scale_attn_weights": (True,),
    "scale_attn_by_inverse_layer_idx": (False,),
    "add_cross_attention": (False,),
    "tie_word_embeddings": (True,),
}


def with_gpt2_sizes(config: GeneratorConfig, sequence_length: int) -> GeneratorConfig:
    """Settings with the sizes of the network in `config.weights`, whose files are checked.

    Args:
        config: Settings of a generator of kind `gpt2`.
        sequence_length: Tokens per caption, T + 1.

    Raises:
        CaptionGANError: A file of the folder is missing, damaged or of another kind of network,
            the files do not belong together, or captions are longer than its longest text.
    """
    folder = WeightsFolder(str(config.weights))
    network = folder.config
    for name, values in _EXPECTED.items():
        value = network.get(name, values[0])
        if value not in values:
            raise CaptionGANError(
                f"{folder.path / CONFIG}: {name} is {value!r}, expected {values[0]!r}; give a "
                "folder of GPT-2, such as gpt2 or distilgpt2."
            )
    try:
        hidden, positions = network["n_embd"], network["n_positions"]
        inner = network.get("n_inner") or 4 * hidden
        sizes = {
            "embedding_size": hidden,
            "hidden_size": hidden,
            "layers": network["n_layer"],
            "attention_heads": network["n_head"],
            "feed_forward_factor": inner // hidden,
            "positions": positions,
        }
        shapes = _shapes(network["vocab_size"], positions, hidden, inner, network["n_layer"])
    except KeyError as error:
        raise CaptionGANError(
            f"{folder.path / CONFIG} has no {error}; give a folder of GPT-2."
        ) from error
    end = network.get("eos_token_id")
    if end not in range(network["vocab_size"]):
        raise CaptionGANError(
            f"{folder.path / CONFIG}: eos_token_id is {end!r}, expected the row of the token that "
            f"ends texts, from 0 to {network['vocab_size'] - 1}; give a folder of GPT-2."
        )
    if inner % hidden:
        raise CaptionGANError(
            f"{folder.path / CONFIG}: n_inner is {inner}, expected a multiple of n_embd, {hidden}; "
            "give a folder of GPT-2, such as gpt2 or distilgpt2."
        )
    for name, shape in shapes.items():
        folder.check_shape(_prefix(folder) + name, shape)
    pieces = len(read_byte_pairs(folder.path).ids)
    if pieces != network["vocab_size"]:
        raise CaptionGANError(
            f"{folder.path}: the tokenizer has {pieces} pieces, the weights have "
            f"{network['vocab_size']}; take the tokenizer from where the weights are from."
        )
    prefix = config.prefix_length if config.image_input == "prefix" else 0
    if prefix + sequence_length - 1 > positions:
        raise CaptionGANError(
            f"text.sequence_length is {sequence_length}, but {folder.path} reads {positions} "
            f"positions, of which {prefix} are the image's; set it to "
            f"{max(positions - prefix + 1, 3)} or less."
        )
    return dataclasses.replace(config, **sizes)


def load_gpt2(generator: GPT2Generator, path: str | Path, vocabulary: tuple[str, ...]) -> None:
    """Sets the weights of a built generator, except those that read the image.

    Start and end token get the embedding of the token with which GPT-2 begins and ends texts,
    padding and the unknown token the mean embedding.

    Args:
        generator: The generator, with sizes by `with_gpt2_sizes`.
        path: The Hugging Face folder.
        vocabulary: V entries of the vocabulary.
    """
    folder = WeightsFolder(path)
    prefix = _prefix(folder)
    rows = folder.tensor(f"{prefix}wte.weight")
    ids = read_byte_pairs(folder.path).ids
    embeddings = np.repeat(rows.mean(axis=0)[None], len(vocabulary), axis=0)  # [V, H]
    embeddings[[START_ID, END_ID]] = rows[folder.config["eos_token_id"]]
    first = len(SPECIAL_TOKENS)
    embeddings[first:] = rows[[ids[piece] for piece in vocabulary[first:]]]
    generator.embedding.assign(embeddings)
    folder.assign(generator.position_embedding.embeddings, f"{prefix}wpe.weight")
    for index, block in enumerate(generator.blocks):
        name = f"{prefix}h.{index}"
        attention: TokenAttention = block.token_attention
        folder.assign_norm(block.token_norm, f"{name}.ln_1")
        folder.assign_norm(block.feed_forward_norm, f"{name}.ln_2")
        for layer, part in (
            (attention.input_projection, "attn.c_attn"),
            (attention.output_projection, "attn.c_proj"),
            (block.expansion, "mlp.c_fc"),
            (block.contraction, "mlp.c_proj"),
        ):
            folder.assign(layer.kernel, f"{name}.{part}.weight")  # Not transposed, unlike others.
            folder.assign(layer.bias, f"{name}.{part}.bias")
    folder.assign_norm(generator.output_norm, f"{prefix}ln_f")


def _prefix(folder: WeightsFolder) -> str:
    """What the names of arrays begin with: nothing if the network was saved without its head."""
    return "" if folder.has_tensor("wte.weight") else "transformer."


def _shapes(
    vocabulary: int, positions: int, hidden: int, inner: int, layers: int
) -> dict[str, tuple[int, ...]]:
    """Shapes of all arrays by name."""
    shapes: dict[str, tuple[int, ...]] = {
        "wte.weight": (vocabulary, hidden),
        "wpe.weight": (positions, hidden),
        "ln_f.weight": (hidden,),
        "ln_f.bias": (hidden,),
    }
    for index in range(layers):
        for name, columns, row in (
            ("attn.c_attn", 3 * hidden, hidden),
            ("attn.c_proj", hidden, hidden),
            ("mlp.c_fc", inner, hidden),
            ("mlp.c_proj", hidden, inner),
        ):
            shapes[f"h.{index}.{name}.weight"] = (row, columns)
            shapes[f"h.{index}.{name}.bias"] = (columns,)
        for name in ("ln_1", "ln_2"):
            shapes |= {f"h.{index}.{name}.{part}": (hidden,) for part in ("weight", "bias")}
    return shapes
