"""The objective `maximum_likelihood`: cross-entropy of real captions with teacher forcing.

B batch, K captions an image, T time, V vocabulary, R regions, D region depth, Z noise.
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
from caption_gan.training.losses import counted, cross_entropy
from caption_gan.training.objectives.trainer import Objective
from caption_gan.training.optimizers import build_optimizer

T = TypeVar("T")


@keras.saving.register_keras_serializable(package="caption_gan")
class MaximumLikelihood(Objective):
    """Trains a captioner to give real captions a high probability.

    Args:
        captioner: Encoder and generator.
        label_smoothing: Of the cross-entropy in training; validation has none.
        scheduled_sampling: Share of words that the model reads from itself in the last step,
            growing linearly from none in the first (Bengio et al., 2015).
        steps: Number of training steps, over which the share grows.
        lengths: Number of lengths to one of which a training batch is cut. The recurrences are
            unrolled, so each length has a graph of its own.
        seed: Of noise and scheduled sampling.
    """

    def __init__(
        self,
        captioner: Captioner,
        label_smoothing: float = 0.0,
        scheduled_sampling: float = 0.0,
        steps: int = 1,
        lengths: int = 1,
        seed: int = 0,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.captioner = captioner
        self.label_smoothing = label_smoothing
        self.scheduled_sampling = scheduled_sampling
        self.steps = steps
        self.lengths = lengths
        self.seed = seed
        self.seed_generator = replicas.SeedGenerator(seed)
        self.loss_tracker = replicas.Mean(name="loss")
        self.built = True

    @classmethod
    def stage(
        cls, captioner: Captioner, config: MaximumLikelihoodConfig, steps: int, seed: int
    ) -> "MaximumLikelihood":
        """Builds and compiles the objective as a stage of a run of so many steps."""
        model = cls(
            captioner,
            label_smoothing=config.label_smoothing,
            scheduled_sampling=config.scheduled_sampling,
            steps=steps,
            lengths=config.lengths,
            seed=seed,
        )
        optimizer = build_optimizer(
            steps,
            learning_rate=config.learning_rate,
            matrix_learning_rate=config.matrix_learning_rate,
            warmup=config.warmup,
            weight_decay=config.weight_decay,
            gradient_clip=config.gradient_clip,
            pretrained=captioner.encoder.pretrained_variables,
            pretrained_learning_rate=config.pretrained_learning_rate,
        )
        # "auto" may choose XLA on a GPU, where compiling the unrolled GRU takes half a minute.
        model.compile(optimizer=optimizer, jit_compile=False)
        optimizer.build(model.trainable_variables)
        return model

    @property
    def metrics(self):
        return [self.loss_tracker]

    @trace_scope(GENERATOR_UPDATE)
    def train_step(self, batch):
        """One update on a batch {image [B, H, W, 3] | regions [B, R, D], token_ids [B, K, T]}."""

        count = counted(batch["token_ids"][..., 1:] != PAD_ID)

        def differentiate(token_ids: tf.Tensor) -> tuple[tf.Tensor, list[tf.Tensor]]:
            with tf.GradientTape() as tape:
                loss = self.batch_loss(batch | {"token_ids": token_ids}, True, count)
                scaled = self.optimizer.scale_loss(loss)
            return loss, tape.gradient(scaled, self.trainable_variables)

        loss, gradients = at_fitting_length(differentiate, batch["token_ids"], self.lengths)
        self.optimizer.apply(replicas.mean(gradients), self.trainable_variables)
        self.loss_tracker.update_state(replicas.mean(loss))
        return self.get_metrics_result()

    def test_step(self, batch):
        """Cross-entropy of a validation batch, in nats a token."""
        self.loss_tracker.update_state(self.batch_loss(batch, training=False))
        return self.get_metrics_result()

    def batch_loss(self, batch, training: bool, count: tf.Tensor | None = None) -> tf.Tensor:
        """Cross-entropy of the batch's captions, in nats a token, of which there are `count`."""
        regions = self.captioner.regions(batch, training)  # [B, R, D]
        read, write = batch["token_ids"][..., :-1], batch["token_ids"][..., 1:]  # [B, K, T - 1]
        noise = self.noise(tf.shape(read), training)  # [B, K, Z]
        if training and self.scheduled_sampling:
            read = self.mix_own_words(regions, read, noise)
        generator = self.captioner.generator
        memory = generator.encode(regions, training)
        logits = generator.teacher_forcing(read, memory, noise, training)
        smoothing = self.label_smoothing if training else 0.0
        return cross_entropy(logits, write, write != PAD_ID, smoothing, count)

    def noise(self, shape: tf.Tensor, training: bool) -> tf.Tensor:
        """Noise [B, K, Z]; zero outside training, so that validation losses are comparable."""
        shape = [shape[0], shape[1], self.captioner.generator.noise_size]
        if not training:
            return tf.zeros(shape)
        return keras.random.normal(shape, seed=self.seed_generator)

    def mix_own_words(self, regions: Regions, read: tf.Tensor, noise: tf.Tensor) -> tf.Tensor:
        """Replaces a growing share of the words that are read [B, K, T] by the model's own.

        All words in one pass: the model's words follow from the real ones before them (parallel
        scheduled sampling; Duckworth et al., 2019).
        """
        progress = tf.cast(self.optimizer.iterations, tf.float32) / self.steps
        generator = self.captioner.generator
        memory = generator.encode(regions, training=True)
        logits = generator.teacher_forcing(read[..., :-1], memory, noise, training=True)
        own = keras.random.categorical(
            tf.reshape(mask_special_tokens(logits), [-1, logits.shape[-1]]),
            1,
            seed=self.seed_generator,
        )
        own = tf.reshape(tf.cast(own, tf.int32), tf.shape(read[..., 1:]))  # [B, K, T - 1]
        chance = keras.random.uniform(tf.shape(own), seed=self.seed_generator)
        replaced = (chance < self.scheduled_sampling * progress) & (read[..., 1:] != PAD_ID)
        return tf.concat([read[..., :1], tf.where(replaced, own, read[..., 1:])], axis=-1)

    def get_config(self):
        return {
            **super().get_config(),
            "captioner": keras.saving.serialize_keras_object(self.captioner),
            "label_smoothing": self.label_smoothing,
            "scheduled_sampling": self.scheduled_sampling,
            "steps": self.steps,
            "lengths": self.lengths,
            "seed": self.seed,
        }

    @classmethod
    def from_config(cls, config):
        config["captioner"] = keras.saving.deserialize_keras_object(config["captioner"])
        return cls(**config)


def at_fitting_length(function: Callable[[tf.Tensor], T], token_ids: tf.Tensor, lengths: int) -> T:
    """Calls a function on captions without the padding that all of them have at their end.

    Args:
        function: Of token ids [B, K, t].
        token_ids: [B, K, T].
        lengths: Number of values that t may have, evenly from T / 2 to T; the function is traced
            for each of them.
    """
    time = token_ids.shape[-1]
    choices = [time - (lengths - 1 - number) * time // (2 * lengths) for number in range(lengths)]
    if lengths == 1:
        return function(token_ids)
    longest = tf.reduce_max(tf.math.count_nonzero(token_ids != PAD_ID, axis=-1, dtype=tf.int32))
    fitting = tf.math.count_nonzero(longest > choices[:-1], dtype=tf.int32)
    return tf.switch_case(
        fitting, [functools.partial(function, token_ids[..., :choice]) for choice in choices]
    )
