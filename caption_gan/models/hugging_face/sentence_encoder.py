"""Sentence encoders of BERT's kind, such as MiniLM: texts to vectors, in the graph.

N texts, T tokens, V vocabulary, H hidden, A heads; (W) words and (P) pieces are ragged.
"""

from collections.abc import Sequence
from pathlib import Path

import keras
import tensorflow as tf
import tensorflow_text as tf_text

from caption_gan.errors import CaptionGANError
from caption_gan.models.generators.attention import (
    attend,
    bias_of_mask,
    masked_mean,
    merge_heads,
    split_heads,
)
from caption_gan.models.hugging_face.weights_folder import WeightsFolder

PAD, UNKNOWN, START, END = "[PAD]", "[UNK]", "[CLS]", "[SEP]"


@keras.saving.register_keras_serializable(package="caption_gan")
class SentenceEncoder(keras.Model):
    """Embeds sentences near others of the same meaning: the normalised mean of BERT's outputs.

    Reimers & Gurevych, "Sentence-BERT", 2019. WordPiece and the network are both in the graph, so
    that a SavedModel takes strings. Dropout is left out, also in training.

    Args:
        vocabulary: All V pieces, in the order of their ids.
        hidden_size: H, the length of vectors.
        layers: Number of Transformer blocks.
        heads: A, which divides H.
        intermediate_size: Width of the blocks' feed-forward layers.
        positions: Largest number of tokens.
        maximum_tokens: Longer texts lose their last tokens.
        epsilon: Of layer normalisation.
        lowercase: Whether texts become lower case and lose their accents.
    """

    def __init__(
        self,
        vocabulary: Sequence[str],
        hidden_size: int,
        layers: int,
        heads: int,
        intermediate_size: int,
        positions: int = 512,
        maximum_tokens: int = 256,
        epsilon: float = 1e-12,
        lowercase: bool = True,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.vocabulary = tuple(vocabulary)
        self.hidden_size = hidden_size
        self.number_of_layers = layers
        self.heads = heads
        self.intermediate_size = intermediate_size
        self.positions = positions
        self.maximum_tokens = maximum_tokens
        self.epsilon = epsilon
        self.lowercase = lowercase
        ids = {piece: number for number, piece in enumerate(self.vocabulary)}
        self.start_id, self.end_id, self.pad_id = ids[START], ids[END], ids[PAD]
        pieces = tf.lookup.KeyValueTensorInitializer(
            tf.constant(self.vocabulary), tf.range(len(self.vocabulary), dtype=tf.int64)
        )
        # A StaticHashTable in the graph, because a file would have to be there when it is loaded.
        self.table = tf.lookup.StaticHashTable(pieces, ids[UNKNOWN])
        self.tokenizer = tf_text.BertTokenizer(
            self.table, lower_case=lowercase, token_out_type=tf.int64, unknown_token=UNKNOWN
        )
        self.token_embedding = keras.layers.Embedding(
            len(self.vocabulary), hidden_size, name="token_embedding"
        )
        # The vector of the only token type is part of each position's.
        self.position_embedding = keras.layers.Embedding(
            positions, hidden_size, name="position_embedding"
        )
        self.norm = keras.layers.LayerNormalization(epsilon=epsilon, name="norm")
        self.blocks = [
            PostNormBlock(hidden_size, heads, intermediate_size, epsilon, name=f"block_{number}")
            for number in range(layers)
        ]
        self.build()

    def build(self, input_shape=None):
        tokens = (None, None, self.hidden_size)
        self.token_embedding.build((None, None))
        self.position_embedding.build((None,))
        self.norm.build(tokens)
        for block in self.blocks:
            block.build(tokens)
        self.built = True

    def call(self, texts: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Strings [N] to vectors [N, H] of length 1."""
        token_ids, mask = self.tokenize(texts)  # [N, T] each
        return self.embed(token_ids, mask)

    def tokenize(self, texts: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Strings [N] to token ids [N, T] between start and end, and a mask [N, T] of padding."""
        pieces = self.tokenizer.tokenize(texts).merge_dims(1, 2)  # [N, (P)]
        pieces = pieces[:, : self.maximum_tokens - 2]
        ends = tf.ones([pieces.nrows(), 1], tf.int64)
        token_ids = tf.concat([self.start_id * ends, pieces, self.end_id * ends], axis=1)
        mask = tf.sequence_mask(token_ids.row_lengths(), dtype=tf.bool)
        return token_ids.to_tensor(tf.constant(self.pad_id, tf.int64)), mask

    def embed(self, token_ids: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
        """Token ids and a boolean mask [N, T] to vectors [N, H] of length 1."""
        positions = tf.range(tf.shape(token_ids)[1])
        tokens = self.token_embedding(token_ids) + self.position_embedding(positions)  # [N, T, H]
        tokens = self.norm(tokens)
        for block in self.blocks:
            tokens = block(tokens, mask)
        return tf.math.l2_normalize(masked_mean(tokens, mask), axis=-1)

    def get_config(self):
        return {
            **super().get_config(),
            "vocabulary": list(self.vocabulary),
            "hidden_size": self.hidden_size,
            "layers": self.number_of_layers,
            "heads": self.heads,
            "intermediate_size": self.intermediate_size,
            "positions": self.positions,
            "maximum_tokens": self.maximum_tokens,
            "epsilon": self.epsilon,
            "lowercase": self.lowercase,
        }


@keras.saving.register_keras_serializable(package="caption_gan")
class PostNormBlock(keras.layers.Layer):
    """A Transformer block that normalises after each addition (Vaswani et al., 2017).

    Args:
        hidden_size: H.
        heads: A.
        intermediate_size: Width of the feed-forward layer.
        epsilon: Of layer normalisation.
    """

    def __init__(
        self, hidden_size: int, heads: int, intermediate_size: int, epsilon: float, **kwargs
    ):
        super().__init__(**kwargs)
        self.hidden_size = hidden_size
        self.heads = heads
        self.intermediate_size = intermediate_size
        self.epsilon = epsilon
        self.query, self.key, self.value, self.attended = (
            keras.layers.Dense(hidden_size, name=name)
            for name in ("query", "key", "value", "attended")
        )
        self.attention_norm = keras.layers.LayerNormalization(
            epsilon=epsilon, name="attention_norm"
        )
        self.widen = keras.layers.Dense(intermediate_size, name="widen")
        self.narrow = keras.layers.Dense(hidden_size, name="narrow")
        self.output_norm = keras.layers.LayerNormalization(epsilon=epsilon, name="output_norm")

    def build(self, input_shape):
        for layer in (self.query, self.key, self.value, self.attended, self.widen):
            layer.build(input_shape)
        self.narrow.build((*input_shape[:-1], self.intermediate_size))
        self.attention_norm.build(input_shape)
        self.output_norm.build(input_shape)
        self.built = True

    def call(self, tokens: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
        """Tokens [N, T, H] with a mask [N, T] to tokens [N, T, H]."""
        queries, keys, values = (
            split_heads(layer(tokens), self.heads)  # [N, A, T, H / A]
            for layer in (self.query, self.key, self.value)
        )
        context, _ = attend(queries, keys, values, bias_of_mask(mask))
        tokens = self.attention_norm(tokens + self.attended(merge_heads(context)))
        wide = tf.nn.gelu(self.widen(tokens), approximate=False)
        return self.output_norm(tokens + self.narrow(wide))

    def get_config(self):
        return {
            **super().get_config(),
            "hidden_size": self.hidden_size,
            "heads": self.heads,
            "intermediate_size": self.intermediate_size,
            "epsilon": self.epsilon,
        }


def load_sentence_encoder(path: str | Path) -> SentenceEncoder:
    """Builds a sentence encoder of BERT's kind from a Hugging Face folder.

    Args:
        path: Local folder with `config.json`, `model.safetensors` and either `tokenizer.json` or
            `vocab.txt`; `sentence_bert_config.json` and `1_Pooling/config.json` are heeded.

    Raises:
        CaptionGANError: The folder lacks a file or holds another kind of network.
    """
    folder = WeightsFolder(path)
    config = folder.config
    expected = {"model_type": "bert", "hidden_act": "gelu"}
    for name, value in expected.items():
        if config.get(name) != value:
            raise CaptionGANError(
                f"{folder.path}: {name} is {config.get(name)!r}, expected {value!r}; give a "
                "sentence encoder of BERT's kind, such as all-MiniLM-L6-v2."
            )
    pooling = "1_Pooling/config.json"
    if folder.has(pooling) and not folder.json(pooling).get("pooling_mode_mean_tokens"):
        raise CaptionGANError(
            f"{folder.path / pooling} has no mean over tokens; give a sentence encoder that "
            "averages its tokens, such as all-MiniLM-L6-v2."
        )
    maximum = config["max_position_embeddings"]
    if folder.has("sentence_bert_config.json"):
        maximum = folder.json("sentence_bert_config.json").get("max_seq_length") or maximum
    encoder = SentenceEncoder(
        _vocabulary(folder),
        config["hidden_size"],
        config["num_hidden_layers"],
        config["num_attention_heads"],
        config["intermediate_size"],
        config["max_position_embeddings"],
        maximum,
        config["layer_norm_eps"],
        _is_lowercase(folder),
        name="sentence_encoder",
    )
    _assign(encoder, folder)
    return encoder


def _vocabulary(folder: WeightsFolder) -> list[str]:
    if folder.has("tokenizer.json"):
        ids = folder.json("tokenizer.json")["model"]["vocab"]
        vocabulary = sorted(ids, key=ids.__getitem__)
    elif folder.has("vocab.txt"):
        vocabulary = (folder.path / "vocab.txt").read_text(encoding="utf-8").splitlines()
    else:
        raise CaptionGANError(
            f"{folder.path} has no tokenizer.json and no vocab.txt, which name the word pieces; "
            "copy one of them from where the weights are from."
        )
    missing = {PAD, UNKNOWN, START, END} - set(vocabulary)
    if missing or len(vocabulary) != folder.config["vocab_size"]:
        raise CaptionGANError(
            f"{folder.path}: the tokenizer has {len(vocabulary)} pieces, the weights have "
            f"{folder.config['vocab_size']}"
            + (f", and {', '.join(sorted(missing))} is missing" if missing else "")
            + "; take the tokenizer from where the weights are from."
        )
    return vocabulary


def _is_lowercase(folder: WeightsFolder) -> bool:
    name = "tokenizer_config.json"
    return bool(folder.json(name).get("do_lower_case", True)) if folder.has(name) else True


def _assign(encoder: SentenceEncoder, folder: WeightsFolder) -> None:
    """Sets all weights."""
    prefix = "" if folder.has_tensor("embeddings.word_embeddings.weight") else "bert."
    embeddings = f"{prefix}embeddings"
    folder.assign(encoder.token_embedding.embeddings, f"{embeddings}.word_embeddings.weight")
    token_type = folder.tensor(f"{embeddings}.token_type_embeddings.weight")[0]  # [H]
    folder.assign(
        encoder.position_embedding.embeddings,
        f"{embeddings}.position_embeddings.weight",
        lambda array: array + token_type,
    )
    folder.assign_norm(encoder.norm, f"{embeddings}.LayerNorm")
    for number, block in enumerate(encoder.blocks):
        layer = f"{prefix}encoder.layer.{number}"
        folder.assign_dense(block.query, f"{layer}.attention.self.query")
        folder.assign_dense(block.key, f"{layer}.attention.self.key")
        folder.assign_dense(block.value, f"{layer}.attention.self.value")
        folder.assign_dense(block.attended, f"{layer}.attention.output.dense")
        folder.assign_norm(block.attention_norm, f"{layer}.attention.output.LayerNorm")
        folder.assign_dense(block.widen, f"{layer}.intermediate.dense")
        folder.assign_dense(block.narrow, f"{layer}.output.dense")
        folder.assign_norm(block.output_norm, f"{layer}.output.LayerNorm")
