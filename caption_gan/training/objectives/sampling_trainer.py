"""The base of objectives that compare the generator's own samples with real captions.

N images per step, K captions per image, T time, R regions, D region depth.
"""

from collections.abc import Callable

import keras
import tensorflow as tf

from caption_gan.config.objective_config import SamplingConfig
from caption_gan.distribution import replicas
from caption_gan.models.captioner import Captioner
from caption_gan.models.decoding import sampling
from caption_gan.models.decoding.constraints import mask_special_tokens
from caption_gan.models.decoding.decoder import DecodingOptions
from caption_gan.models.encoders.encoder import Regions
from caption_gan.models.generators.generator import Generator
from caption_gan.models.trace_scopes import GENERATOR_UPDATE, trace_scope
from caption_gan.text.vocabulary import END_ID, PAD_ID, START_ID, UNK_ID
from caption_gan.training import losses
from caption_gan.training.accumulation import Part, accumulated_gradients
from caption_gan.training.objectives.trainer import Trainer
from caption_gan.training.optimizers import build_optimizer

ENCODED = ("image", "regions")  # What a batch has of its images.
GENERATOR_METRICS = ("loss", "mle_loss", "generator_gradient_norm")


class SamplingTrainer(Trainer):
    """Samples captions, and updates the generator on a loss of them and on its cross-entropy.

    The cross-entropy of real captions (`mle_weight`) preserves variety. See `Trainer` for the
    arguments.
    """

    def __init__(self, captioner: Captioner, config: SamplingConfig, steps: int, seed: int):
        super().__init__(captioner, config, steps, seed)
        self.means = {name: replicas.Mean(name=name) for name in GENERATOR_METRICS}
        self.built = True

    def build_optimizers(self) -> dict[str, keras.optimizers.Optimizer]:
        """AdamW for the generator."""
        config = self.config
        optimizer = build_optimizer(
            max(self.steps - config.generator_warmup_steps, 1),
            learning_rate=config.learning_rate,
            matrix_learning_rate=0.0,
            warmup_fraction=0.05,
            weight_decay=0.0,
            gradient_clip=config.gradient_clip,
        )
        optimizer.build(self.generator_variables)
        return {"optimizer": optimizer}

    @staticmethod
    def monitored_metric(facts_are_known: bool) -> str:
        """Fact accuracy of samples if known, else CIDEr: this training changes the samples."""
        return "val_sample_fact_accuracy" if facts_are_known else "val_CIDEr"

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        return list(self.means.values())

    @property
    def progress(self) -> tf.Tensor:
        """Share of the generator's training that is done, in [0, 1]."""
        done = tf.cast(self.optimizer.iterations, tf.float32)
        return tf.minimum(done / max(self.steps - self.config.generator_warmup_steps, 1), 1.0)

    def draw_seed(self) -> tf.Tensor:
        """Two new integers [2] for stateless random operations."""
        # Decoding adds the time step to the second one; without the factor, that would be the
        # seed of a later call.
        return tf.cast(self.seed_generator.next(), tf.int32) * [1, 1024]

    def sample_captions(
        self,
        regions: Regions,
        length: int,
        seed: tf.Tensor,
        generator: Generator | None = None,
    ) -> tf.Tensor:
        """Samples captions [N, K, T], with start token and padding.

        Args:
            regions: [N, R, D].
            length: T.
            seed: Two integers [2]; see `draw_seed`.
            generator: Default: the one in training.
        """
        options = DecodingOptions(length, samples=self.config.captions)
        decoded = sampling.sample(generator or self.captioner.generator, regions, options, seed)
        return tf.pad(decoded.token_ids, [[0, 0], [0, 0], [1, 0]], constant_values=START_ID)

    @trace_scope(GENERATOR_UPDATE)
    def update_generator(
        self,
        batch: dict[str, tf.Tensor],
        regions: Regions,
        sample_loss: Callable[[Regions, Part], tf.Tensor],
    ) -> tf.Tensor:
        """Updates the generator on the loss of its samples and on its cross-entropy.

        Args:
            batch: The step's images and captions.
            regions: [N, R, D], without a gradient.
            sample_loss: From the regions of a part of the images, with a gradient if the encoder
                is trained, to a scalar; those of all parts add up to the loss of the samples.

        Returns:
            The loss, a scalar; 0 if the generator is not trained in this step.
        """
        start, end = self.config.mle_weight, self.config.mle_weight_end
        mle_weight = start + (end - start) * self.progress
        count = losses.token_count(batch["token_ids"][..., 1:] != PAD_ID)

        def losses_of(part: Part) -> dict[str, tf.Tensor]:
            seen = regions.map(part)
            if self.config.train_encoder:
                pixels_or_cached = {name: part(batch[name]) for name in ENCODED if name in batch}
                seen = self.captioner.regions(pixels_or_cached, True)
            mle_loss = self.mle_loss(seen, part(batch["token_ids"]), count=count)
            return {
                "loss": sample_loss(seen, part) + mle_weight * mle_loss,
                "mle_loss": mle_loss,
            }

        variables = self.generator_variables
        loss_scale = self.optimizer.scale_loss(1.0)
        sums, gradients = accumulated_gradients(
            losses_of,
            ["loss", "mle_loss"],
            variables,
            self.config.accumulation_steps,
            loss_scale,
        )
        gradients = replicas.mean(gradients)
        self.optimizer.apply(gradients, variables)
        self.update_metrics(
            loss_scale,
            **sums,
            generator_gradient_norm=tf.linalg.global_norm(gradients) / loss_scale,
        )
        return sums["loss"]

    def mle_loss(
        self,
        regions: Regions,
        real: tf.Tensor,
        training: bool = True,
        count: tf.Tensor | None = None,
    ) -> tf.Tensor:
        """Cross-entropy of real captions in nats per token; without noise outside training."""
        generator = self.captioner.generator
        inputs, targets = real[..., :-1], real[..., 1:]
        images, captions = tf.unstack(tf.shape(inputs)[:2])
        noise = tf.zeros([images, captions, generator.noise_size])
        if training:
            noise = sampling.draw_noise(generator, images, captions, self.draw_seed())
        logits = generator(regions.features, inputs, noise, regions.mask, training=training)
        return losses.cross_entropy(logits, targets, targets != PAD_ID, count=count)

    def test_step(self, batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Cross-entropy of a validation batch, comparable to that of `maximum_likelihood`."""
        regions, real = self.captioner.regions(batch), batch["token_ids"]
        self.update_metrics(loss=self.mle_loss(regions, real, training=False))
        return {"loss": self.means["loss"].result()}

    def update_metrics(self, loss_scale: tf.Tensor | float = 1.0, **values: tf.Tensor) -> None:
        """Takes values of a step into the means of the epoch.

        Args:
            loss_scale: Scale of the loss. While it can be lowered, a value that is not finite only
                means that the scale was too large, and is left out.
            **values: Scalars by name.
        """
        means = tf.unstack(replicas.mean(tf.stack(list(values.values()))), num=len(values))
        for name, value in zip(values, means, strict=True):
            counts = tf.math.is_finite(value) | (loss_scale <= 1.0)
            self.means[name].update_state(tf.where(counts, value, 0.0), counts)


def can_be_sampled(captions: tf.Tensor) -> tf.Tensor:
    """Which tokens after the first of captions [N, K, T] sampling can choose, bool [N, K, T - 1].

    The token for unknown words is never drawn, and the last position is always the end token.
    """
    targets = captions[..., 1:]
    counts = (targets != PAD_ID) & (targets != UNK_ID)
    return counts & (tf.range(tf.shape(targets)[-1]) < tf.shape(targets)[-1] - 1)


def token_log_probabilities(
    generator: Generator, regions: Regions, captions: tf.Tensor, noise: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Log-probabilities with which `sampling.sample` draws the tokens of captions.

    Args:
        generator: Predicts the tokens.
        regions: [N, R, D].
        captions: [N, K, T].
        noise: [N, K, Z].

    Returns:
        [N, K, T - 1], and which of them count, by `can_be_sampled`.
    """
    inputs, targets = captions[..., :-1], captions[..., 1:]  # [N, K, T - 1]
    logits = generator(regions.features, inputs, noise, regions.mask)
    logits = mask_special_tokens(logits)
    counts = can_be_sampled(captions)
    log_probabilities = -tf.nn.sparse_softmax_cross_entropy_with_logits(
        tf.where(counts, targets, END_ID), logits
    )
    return log_probabilities, counts
