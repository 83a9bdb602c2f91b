"""The two sides of a dual encoder that the package trains: images and texts to unit vectors.

Each side has two parts. What `features` returns never changes during training, so it is computed
once for each image and text; `call` holds what is trained.

B images or texts, R regions, D depth of regions or sentence vectors, P pooled vectors, T time,
W size of word embeddings, H hidden, S size of vectors.
"""

from collections.abc import Mapping

import keras
import tensorflow as tf

from caption_gan.distribution import replicas
from caption_gan.models.encoders.encoder import Encoder
from caption_gan.models.generators.attention import masked_mean
from caption_gan.models.hugging_face.sentence_encoder import SentenceEncoder
from caption_gan.text.tokenizer import Tokenizer
from caption_gan.text.vocabulary import PAD_ID

POOLED = 4  # Weighted means of the regions, each with weights of its own.


@keras.saving.register_keras_serializable(package="caption_gan")
class Head(keras.layers.Layer):
    """Two layers, beside a single one, that map features [B, D] to vectors [B, S] of length 1.

    The single one keeps the geometry of pretrained features, so that a few thousand photographs
    are enough.

    Args:
        hidden_size: H.
        size: S.
        dropout: Dropout rate before each layer.
    """

    def __init__(self, hidden_size: int, size: int, dropout: float, **kwargs):
        super().__init__(**kwargs)
        self.hidden_size = hidden_size
        self.size = size
        self.dropout = dropout
        # Features of backbones differ in scale by a factor of ten.
        self.norm = keras.layers.LayerNormalization(name="norm")
        self.input_dropout = replicas.Dropout(dropout, name="input_dropout")
        self.widen = keras.layers.Dense(hidden_size, activation="gelu", name="widen")
        self.hidden_dropout = replicas.Dropout(dropout, name="hidden_dropout")
        self.project = keras.layers.Dense(size, name="project")
        self.skip = keras.layers.Dense(size, use_bias=False, name="skip")

    def build(self, input_shape):
        self.norm.build(input_shape)
        self.widen.build(input_shape)
        self.skip.build(input_shape)
        self.project.build((None, self.hidden_size))
        self.built = True

    def call(self, features: tf.Tensor, training: bool = False) -> tf.Tensor:
        """[B, D] to [B, S]."""
        features = self.input_dropout(self.norm(features), training=training)
        hidden = self.hidden_dropout(self.widen(features), training=training)  # [B, H]
        return tf.math.l2_normalize(self.project(hidden) + self.skip(features), axis=-1)

    def get_config(self):
        return {
            **super().get_config(),
            "hidden_size": self.hidden_size,
            "size": self.size,
            "dropout": self.dropout,
        }


@keras.saving.register_keras_serializable(package="caption_gan")
class AttentionPooling(keras.layers.Layer):
    """The mean of the regions and P means with learnt weights: [B, R, D] to [B, (1 + P) D].

    Args:
        pooled: P.
    """

    def __init__(self, pooled: int, **kwargs):
        super().__init__(**kwargs)
        self.pooled = pooled
        self.norm = keras.layers.LayerNormalization(name="norm")
        # Begins with the mean: regions of a photograph hardly differ for random weights.
        self.score = keras.layers.Dense(pooled, kernel_initializer="zeros", name="score")

    def build(self, input_shape):
        self.norm.build(input_shape)
        self.score.build(input_shape)
        self.built = True

    def call(self, regions: tf.Tensor) -> tf.Tensor:
        """[B, R, D] to [B, (1 + P) D]."""
        weights = tf.nn.softmax(self.score(self.norm(regions)), axis=1)  # [B, R, P]
        pooled = tf.matmul(weights, regions, transpose_a=True)  # [B, P, D]
        mean = tf.reduce_mean(regions, axis=1, keepdims=True)  # [B, 1, D]
        depth = regions.shape[-1]
        return tf.reshape(tf.concat([mean, pooled], axis=1), [-1, (1 + self.pooled) * depth])

    def get_config(self):
        return {**super().get_config(), "pooled": self.pooled}


class ImageTower(keras.Model):
    """Images to vectors: an encoder, pooling of its regions, and a head.

    A pretrained encoder is frozen, so that its regions are computed once. One without pretrained
    weights is trained.

    Args:
        encoder: A built encoder.
        pooling: `mean` or `attention`.
        head: Maps what was pooled to vectors.
    """

    def __init__(self, encoder: Encoder, pooling: str, head: Head, **kwargs):
        super().__init__(**kwargs)
        self.encoder = encoder
        self.encoder.trainable = encoder.starts_untrained
        depth = encoder.regions_shape[1]
        self.pooling = None
        if pooling == "attention":
            self.pooling = AttentionPooling(POOLED, name="pooling")
            self.pooling.build((None, *encoder.regions_shape))
            depth *= 1 + POOLED
        self.head = head
        self.head.build((None, depth))
        self.built = True

    def features(self, batch: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """What training does not change, of `image` [B, height, width, 3] or cached `regions`.

        Returns:
            The images if the encoder is trained, else regions [B, R, D] or their means [B, D].
        """
        if self.encoder.starts_untrained:
            return batch["image"]
        if "regions" in batch:
            regions = self.encoder.after_cache(tf.cast(batch["regions"], tf.float32))
        else:
            regions = self.encoder(batch["image"])
        if self.pooling is None:
            return masked_mean(regions.features, regions.mask)  # [B, D]
        return regions.features  # [B, R, D]

    def call(self, features: tf.Tensor, training: bool = False) -> tf.Tensor:
        """The result of `features` to vectors [B, S]."""
        if self.encoder.starts_untrained:
            features = self.encoder(features, training=training).features  # [B, R, D]
            if self.pooling is None:
                features = tf.reduce_mean(features, axis=1)
        if self.pooling is not None:
            features = self.pooling(tf.cast(features, tf.float32))
        return self.head(features, training=training)


class SentenceTower(keras.Model):
    """Texts to vectors: a frozen sentence encoder and a head.

    Args:
        encoder: The sentence encoder.
        head: Maps its vectors [B, D] to vectors [B, S].
    """

    def __init__(self, encoder: SentenceEncoder, head: Head, **kwargs):
        super().__init__(**kwargs)
        self.encoder = encoder
        self.encoder.trainable = False
        self.head = head
        self.head.build((None, encoder.hidden_size))
        self.built = True

    def features(self, texts: tf.Tensor) -> tf.Tensor:
        """Strings [B] to sentence vectors [B, D]."""
        return self.encoder(texts)

    def call(self, features: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Sentence vectors [B, D] to vectors [B, S]."""
        return self.head(features, training=training)


class RecurrentTower(keras.Model):
    """Texts to vectors: a bidirectional GRU over learnt word embeddings, and a head.

    Args:
        tokenizer: Its vocabulary is that of the training captions.
        embedding_size: W.
        hidden_size: H of each direction.
        head: Maps the largest states of the GRU [B, 2 H] to vectors [B, S].
    """

    def __init__(
        self, tokenizer: Tokenizer, embedding_size: int, hidden_size: int, head: Head, **kwargs
    ):
        super().__init__(**kwargs)
        self.tokenizer = tokenizer
        self.embedding = keras.layers.Embedding(
            tokenizer.vocabulary_size, embedding_size, name="embedding"
        )
        # Unrolled: faster than a loop on a CPU.
        self.gru = keras.layers.Bidirectional(
            keras.layers.GRU(hidden_size, return_sequences=True, unroll=True), name="gru"
        )
        self.head = head
        self.embedding.build((None, tokenizer.sequence_length))
        self.gru.build((None, tokenizer.sequence_length, embedding_size))
        self.head.build((None, 2 * hidden_size))
        self.built = True

    def features(self, texts: tf.Tensor) -> tf.Tensor:
        """Strings [B] to token ids [B, T]."""
        return self.tokenizer.tokenize(texts)

    def call(self, features: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Token ids [B, T] to vectors [B, S]."""
        mask = features != PAD_ID
        states = self.gru(self.embedding(features), mask=mask)  # [B, T, 2 H]
        states = tf.where(mask[..., None], states, states.dtype.min)
        return self.head(tf.reduce_max(states, axis=1), training=training)


TextTower = SentenceTower | RecurrentTower
