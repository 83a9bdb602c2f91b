"""Trains a dual encoder: images and captions that belong together get similar vectors.

B images per step, K captions per image, J wrong captions per caption, S size of vectors.
"""

import math

import keras
import numpy as np
import tensorflow as tf

from caption_gan.config.dual_encoder import DualEncoderConfig
from caption_gan.models.dual_encoders.towers import ImageTower, TextTower
from caption_gan.training.contrastive.pairs import Pairs
from caption_gan.training.optimizers import build_optimizer

# Of the similarities, as CLIP has them (Radford et al., 2021): the initial value and the largest.
INITIAL_SCALE, LARGEST_SCALE = 1 / 0.07, 100.0
METRICS = ("loss", "recall@1")


def contrastive_loss(
    images: tf.Tensor, texts: tf.Tensor, wrong: tf.Tensor, is_wrong: tf.Tensor, scale: tf.Tensor
) -> tf.Tensor:
    """InfoNCE both ways, a scalar in nats (van den Oord et al., 2018; Radford et al., 2021).

    A caption is compared with all images of the step, an image's caption with those of all other
    images and with the wrong captions of its own. The image's other captions are true of it, so
    they are not compared with each other.

    Args:
        images: Vectors [B, S] of length 1.
        texts: Vectors [B, K, S] of length 1 of the images' captions.
        wrong: Vectors [B, K, J, S] of length 1 of wrong versions of these captions.
        is_wrong: [B, K, J]; false where there is no such version.
        scale: Factor of the cosines, a scalar: the inverse of a temperature.
    """
    count = tf.shape(images)[0]
    logits = scale * tf.einsum("as,bks->abk", images, texts)  # [B, B, K]
    is_own = tf.eye(count, dtype=tf.bool)[..., None]  # [B, B, 1]
    own = tf.einsum("aak->ak", logits)  # [B, K]
    to_image = tf.reduce_logsumexp(logits, axis=0) - own  # [B, K]

    none = logits.dtype.min
    others = tf.reshape(tf.where(is_own, none, logits), [count, -1])  # [B, B K]
    wrong_logits = tf.where(is_wrong, scale * tf.einsum("bs,bkjs->bkj", images, wrong), none)
    wrong_logits = tf.reshape(wrong_logits, [count, -1])  # [B, K J]
    negatives = tf.reduce_logsumexp(tf.concat([others, wrong_logits], axis=1), axis=1)  # [B]
    to_text = tf.nn.softplus(negatives[:, None] - own)  # [B, K]
    return tf.reduce_mean(to_image + to_text) / 2


class ContrastiveTrainer(keras.Model):
    """Trains the two towers of a dual encoder, and the scale of their similarities.

    It is not saved as a Keras model: what is kept of it is a SavedModel of the towers.

    Args:
        images: The image tower.
        texts: The text tower.
        config: Settings.
        steps: Training steps.
    """

    def __init__(
        self, images: ImageTower, texts: TextTower, config: DualEncoderConfig, steps: int, **kwargs
    ):
        super().__init__(**kwargs)
        self.images = images
        self.texts = texts
        self.log_scale = self.add_weight(
            name="log_scale",
            shape=(),
            initializer=keras.initializers.Constant(math.log(INITIAL_SCALE)),
        )
        self.means = {name: keras.metrics.Mean(name=name) for name in METRICS}
        self.built = True
        optimizer = build_optimizer(
            steps,
            config.learning_rate,
            config.matrix_learning_rate,
            warmup_fraction=0.05,
            weight_decay=config.weight_decay,
            gradient_clip=1.0,
        )
        optimizer.exclude_from_weight_decay(var_list=[self.log_scale])
        optimizer.build(self.trainable_variables)
        self.compile(optimizer=optimizer, jit_compile=False)

    @property
    def scale(self) -> tf.Tensor:
        """Factor of the cosines, a scalar."""
        return tf.exp(tf.minimum(tf.convert_to_tensor(self.log_scale), math.log(LARGEST_SCALE)))

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        return list(self.means.values())

    def train_step(self, batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """One update.

        Args:
            batch: {images [B, ...], texts [B, K, ...], wrong [B, K, J, ...], is_wrong [B, K, J]}:
                what the towers' `features` returned.
        """
        outer, wrong_outer = tf.shape(batch["texts"])[:2], tf.shape(batch["wrong"])[:3]
        inner = batch["texts"].shape[2:]
        flat = tf.concat(
            [tf.reshape(batch[name], [-1, *inner]) for name in ("texts", "wrong")], axis=0
        )
        with tf.GradientTape() as tape:
            images = self.images(batch["images"], training=True)  # [B, S]
            vectors = self.texts(flat, training=True)  # [B K (1 + J), S]
            true, wrong = tf.split(
                vectors, [tf.reduce_prod(outer), tf.reduce_prod(wrong_outer)], axis=0
            )
            size = vectors.shape[-1]
            true = tf.reshape(true, tf.concat([outer, [size]], axis=0))  # [B, K, S]
            wrong = tf.reshape(wrong, tf.concat([wrong_outer, [size]], axis=0))  # [B, K, J, S]
            loss = contrastive_loss(images, true, wrong, batch["is_wrong"], self.scale)
        gradients = tape.gradient(loss, self.trainable_variables)
        self.optimizer.apply(gradients, self.trainable_variables)
        nearest = tf.argmax(tf.matmul(true[:, 0], images, transpose_b=True), axis=1)
        found = tf.cast(nearest == tf.range(tf.shape(images, tf.int64)[0]), tf.float32)
        self.means["loss"].update_state(loss)
        self.means["recall@1"].update_state(found)
        return self.get_metrics_result()


def batches(pairs: Pairs, config: DualEncoderConfig, seed: int) -> tf.data.Dataset:
    """An epoch of training batches, in another order whenever it is read.

    Images that do not fill the last batch are left out of that epoch.
    """
    rng = np.random.default_rng(seed)
    size = config.batch_size

    def epoch():
        order = rng.permutation(len(pairs.images))
        for start in range(0, len(order) - size + 1, size):
            yield pairs.batch(order[start : start + size], config.captions, rng)

    example = pairs.batch(np.arange(size), config.captions, np.random.default_rng(seed))
    specs = {name: tf.TensorSpec(array.shape, array.dtype) for name, array in example.items()}
    return tf.data.Dataset.from_generator(epoch, output_signature=specs).prefetch(2)
