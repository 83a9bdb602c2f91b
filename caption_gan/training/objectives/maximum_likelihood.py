"""The objective `maximum_likelihood`: cross-entropy of real captions with teacher forcing.

B batch, K captions per image, T time, V vocabulary, R regions, D region depth, Z noise.
"""

import functools
from collections.abc import Callable
from typing import TypeVar

import keras
import tensorflow as tf

from caption_gan.config.objectives import MaximumLikelihoodConfig
from caption_gan.distribution import replicas
from caption_gan.models.captioner import Captioner
from caption_gan.models.decoding.constraints import mask_special_tokens
from caption_gan.models.encoders.encoder import Regions
from caption_gan.models.trace_scopes import GENERATOR_UPDATE, trace_scope
from caption_gan.text.vocabulary import PAD_ID
from caption_gan.training.accumulation import Part, accumulated_gradients
from caption_gan.training.losses import cross_entropy, token_count
from caption_gan.training.objectives.trainer import Trainer
from caption_gan.training.optimizers import build_optimizer

T = TypeVar("T")


class MaximumLikelihood(Trainer):
    """Trains a captioner to give real captions a high probability; arguments as of `Trainer`."""

    def __init__(
        self, captioner: Captioner, config: MaximumLikelihoodConfig, steps: int, seed: int
    ):
        super().__init__(captioner, config, steps, seed)
        self.loss_tracker = replicas.Mean(name="loss")
        self.built = True

    def build_optimizers(self) -> dict[str, keras.optimizers.Optimizer]:
        """Muon and AdamW, or AdamW alone."""
        config, encoder = self.config, self.captioner.encoder
        optimizer = build_optimizer(
            self.steps,
            learning_rate=config.learning_rate,
            matrix_learning_rate=config.matrix_learning_rate,
            warmup_fraction=config.warmup_fraction,
            weight_decay=config.weight_decay,
            gradient_clip=config.gradient_clip,
            pretrained=encoder.pretrained_variables,
            pretrained_learning_rate=config.pretrained_learning_rate,
            pretrained_steps=self.steps // config.epochs * config.encoder_frozen_epochs,
        )
        optimizer.build(self.generator_variables)
        return {"optimizer": optimizer}

    @property
    def metrics(self):
        return [self.loss_tracker]

    @trace_scope(GENERATOR_UPDATE)
    def train_step(self, batch):
        """One update on a batch {image [B, H, W, 3] | regions [B, R, D], token_ids [B, K, T]}."""
        count = token_count(batch["token_ids"][..., 1:] != PAD_ID)

        def differentiate(token_ids: tf.Tensor) -> tuple[dict[str, tf.Tensor], list[tf.Tensor]]:
            def losses(part: Part) -> dict[str, tf.Tensor]:
                rows = {
                    name: part(each) for name, each in (batch | {"token_ids": token_ids}).items()
                }
                return {"loss": self.batch_loss(rows, True, count)}

            return accumulated_gradients(
                losses,
                ["loss"],
                self.generator_variables,
                self.config.accumulation_steps,
                self.optimizer.scale_loss(1.0),
            )

        sums, gradients = at_bucket_length(
            differentiate, batch["token_ids"], self.config.length_buckets
        )
        self.optimizer.apply(replicas.mean(gradients), self.generator_variables)
        self.loss_tracker.update_state(replicas.mean(sums["loss"]))
        return self.get_metrics_result()

    def test_step(self, batch):
        """Cross-entropy of a validation batch in nats per token, without label smoothing."""
        self.loss_tracker.update_state(self.batch_loss(batch, training=False))
        return self.get_metrics_result()

    def batch_loss(self, batch, training: bool, count: tf.Tensor | None = None) -> tf.Tensor:
        """Cross-entropy of the batch's captions in nats per token, a scalar.

        Args:
            batch: As of `train_step`.
            training: Whether dropout, noise, label smoothing and scheduled sampling are active.
            count: Number of tokens to divide by; see `losses.token_count`.
        """
        regions = self.captioner.regions(batch, training)  # [B, R, D]
        inputs, targets = batch["token_ids"][..., :-1], batch["token_ids"][..., 1:]
        noise = self.noise(tf.shape(inputs), training)  # [B, K, Z]
        if training and self.config.scheduled_sampling:
            inputs = self.mix_predicted_words(regions, inputs, noise)
        generator = self.captioner.generator
        logits = generator(regions.features, inputs, noise, regions.mask, training=training)
        smoothing = self.config.label_smoothing if training else 0.0
        return cross_entropy(logits, targets, targets != PAD_ID, smoothing, count)

    def noise(self, shape: tf.Tensor, training: bool) -> tf.Tensor:
        """Noise [B, K, Z]; zero outside training, so that validation losses are comparable."""
        shape = [shape[0], shape[1], self.captioner.generator.noise_size]
        if not training:
            return tf.zeros(shape)
        return keras.random.normal(shape, seed=self.seed_generator)

    def mix_predicted_words(
        self, regions: Regions, inputs: tf.Tensor, noise: tf.Tensor
    ) -> tf.Tensor:
        """Replaces a growing share of the input words [B, K, T] by sampled predictions.

        The share grows linearly from none in the first step (Bengio et al., 2015). One pass
        predicts all words from the real words before them (parallel scheduled sampling;
        Duckworth et al., 2019).
        """
        progress = tf.cast(self.optimizer.iterations, tf.float32) / self.steps
        generator = self.captioner.generator
        logits = generator(regions.features, inputs[..., :-1], noise, regions.mask, training=True)
        predicted = keras.random.categorical(
            tf.reshape(mask_special_tokens(logits), [-1, logits.shape[-1]]),
            1,
            seed=self.seed_generator,
        )
        predicted = tf.reshape(tf.cast(predicted, tf.int32), tf.shape(inputs[..., 1:]))
        chance = keras.random.uniform(tf.shape(predicted), seed=self.seed_generator)
        is_replaced = chance < self.config.scheduled_sampling * progress  # [B, K, T - 1]
        is_replaced &= inputs[..., 1:] != PAD_ID
        words = tf.where(is_replaced, predicted, inputs[..., 1:])
        return tf.concat([inputs[..., :1], words], axis=-1)


def at_bucket_length(function: Callable[[tf.Tensor], T], token_ids: tf.Tensor, buckets: int) -> T:
    """Calls a function on captions cut to the shortest bucket length that holds all of them.

    Args:
        function: Takes token ids [B, K, t]. The recurrences in it are unrolled, so it is traced
            once per bucket.
        token_ids: [B, K, T].
        buckets: Number of lengths t, evenly from T / 2 to T.
    """
    if buckets == 1:
        return function(token_ids)
    time = token_ids.shape[-1]
    lengths = [time - (buckets - 1 - number) * time // (2 * buckets) for number in range(buckets)]
    longest = tf.reduce_max(tf.math.count_nonzero(token_ids != PAD_ID, axis=-1, dtype=tf.int32))
    bucket = tf.math.count_nonzero(longest > lengths[:-1], dtype=tf.int32)
    return tf.switch_case(
        bucket, [functools.partial(function, token_ids[..., :length]) for length in lengths]
    )
