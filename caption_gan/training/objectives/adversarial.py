"""What `wgan_gp` and `policy_gradient` share around their updates: the critic and its batches.

The algorithms themselves are in those two files.

N images per step (critic updates x batch size), B images per critic update, K captions per image,
T time, R regions, D region depth, E embedding.
"""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from caption_gan.config.adversarial import AdversarialConfig
from caption_gan.distribution import precision, replicas
from caption_gan.models.captioner import Captioner
from caption_gan.models.critics.critic import build_critic
from caption_gan.models.critics.references import References
from caption_gan.models.encoders.encoder import Regions
from caption_gan.training.accumulation import Part
from caption_gan.training.objectives.negatives import most_similar, near_misses
from caption_gan.training.objectives.sampling_trainer import SamplingTrainer
from caption_gan.training.optimizers import Adam
from caption_gan.training.rewards.critic import CriticScore
from caption_gan.training.weight_constraints import constrain

TRAINS_CRITIC = "critic alone"
TRAINS_GENERATOR = "critic and generator"
CRITIC_METRICS = (
    "critic_loss",
    "penalty",
    "critic_gradient_norm",
    "margin",  # Of real over generated captions.
    "mismatched_margin",  # Of real over false captions.
)


class CriticBatch(NamedTuple):
    """What a critic update compares.

    Attributes:
        regions: Of the images, [B, R, D].
        real: Captions of the images, [B, K, T].
        fake: Generated captions, [B, K, T].
        false: Real captions of other images and near misses, [B, K, T].
        replaced: Which tokens of `false` were replaced, boolean [B, K, T].
        references: Of the real, generated and false caption at each place.
    """

    regions: Regions
    real: tf.Tensor
    fake: tf.Tensor
    false: tf.Tensor
    replaced: tf.Tensor
    references: References

    def part(self, part: Part) -> "CriticBatch":
        """A part of the images."""
        return CriticBatch(
            self.regions.map(part),
            part(self.real),
            part(self.fake),
            part(self.false),
            part(self.replaced),
            References(*map(part, self.references)),
        )


class AdversarialTrainer(SamplingTrainer):
    """Base of the objectives with a critic; builds the critic that the settings describe.

    Args:
        captioner: Encoder and generator.
        config: Settings of the objective.
        steps: Training steps of the stage, over which schedules run.
        seed: Seed of noise, samples and mixing.
        reads_corpora: Whether batches hold `corpus_token_ids` [N, K, T], text without images.
        references: Token ids [C, T] of each training image's captions, without the start token;
            read only for rewards that need document frequencies.
    """

    def __init__(
        self,
        captioner: Captioner,
        config: AdversarialConfig,
        steps: int,
        seed: int,
        reads_corpora: bool = False,
        references: Iterable[np.ndarray] = (),
    ):
        super().__init__(captioner, config, steps, seed)
        self.critic: Any = None
        self.critic_score: Any = None
        self.unconditional_share = config.unconditional_share if reads_corpora else 0.0
        if config.has_critic:
            self.critic = build_critic(config.critic, captioner.generator)
            constrain(self.critic.trainable_variables, config.constraint, config.clip_value)
            self.critic_score = CriticScore(self.critic, self.unconditional_share)
            for name in (*CRITIC_METRICS, *(["verdict_loss"] if config.near_misses else [])):
                self.means[name] = replicas.Mean(name=name)

    def build_optimizers(self) -> dict[str, keras.optimizers.Optimizer]:
        """AdamW for the generator and Adam for the critic."""
        # Low momentum: the critic's target moves, because the generator is trained meanwhile.
        critic_optimizer = Adam(
            self.config.critic_learning_rate,
            beta_1=0.5,
            beta_2=0.9,
            global_clipnorm=self.config.gradient_clip,
        )
        critic_optimizer = precision.scaled(critic_optimizer)
        critic_optimizer.build(self.critic.trainable_variables if self.critic else [])
        return {**super().build_optimizers(), "critic_optimizer": critic_optimizer}

    def compile(  # type: ignore[override]
        self,
        optimizer: keras.optimizers.Optimizer,
        critic_optimizer: keras.optimizers.Optimizer,
        steps_per_execution: int = 1,
        jit_compile: bool = False,
    ) -> None:
        """Sets both optimizers; see `Trainer.compile`."""
        super().compile(optimizer, steps_per_execution, jit_compile)
        self.critic_optimizer = critic_optimizer

    @property
    def checkpoint_variables(self) -> dict[str, list[keras.Variable]]:
        """Those of every trainer, and the critic's optimizer."""
        return {
            **super().checkpoint_variables,
            "critic_optimizer": list(self.critic_optimizer.variables),
        }

    @property
    def trained_state(self) -> list[keras.Variable]:
        """Weights and optimizer states, the critic's included."""
        return [*super().trained_state, *self.critic_optimizer.variables]

    @property
    def updates_per_step(self) -> int:
        """Critic updates per step (n_critic)."""
        return self.config.critic_updates if self.critic else 1

    @property
    def warmup_updates(self) -> int:
        """Critic updates before the generator is trained."""
        return self.config.generator_warmup_steps * self.config.critic_updates

    @property
    def step_kind(self) -> str | None:
        """Whether the next step trains the generator; a single replica decides in the graph."""
        if not replicas.several():
            return None
        if self.critic is None:
            return TRAINS_GENERATOR
        done = int(keras.ops.convert_to_numpy(self.critic_optimizer.iterations))
        is_warm = done + self.updates_per_step > self.warmup_updates
        return TRAINS_GENERATOR if is_warm else TRAINS_CRITIC

    @property
    def warmup_done(self) -> bool:
        """Whether all later steps train the generator."""
        return self.step_kind in (None, TRAINS_GENERATOR)

    def false_captions(self, regions: Regions, real: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Captions [N, K, T] that are false of their image, and which tokens were replaced.

        Each is a near miss with the probability `near_misses`, else a real caption of another image
        of the whole batch.
        """
        others = self.of_other_images(real)
        if self.config.hard_negatives:
            batch = replicas.all_gather(real, self.updates_per_step)
            others = tf.gather(batch, most_similar(batch))
            others = replicas.local_rows(others, self.updates_per_step)
        if not self.config.near_misses:
            return others, tf.zeros_like(real, tf.bool)
        other_regions = regions.map(self.of_other_images)
        near, replaced = near_misses(
            self.captioner.generator, regions, other_regions, real, self.draw_seed()
        )
        uniform = tf.random.stateless_uniform(tf.shape(real)[:2], self.draw_seed())
        is_near = tf.reduce_any(replaced, axis=-1) & (uniform < self.config.near_misses)
        is_near = is_near[..., None]  # [N, K, 1]
        return tf.where(is_near, near, others), replaced & is_near

    def of_other_images(self, rows: tf.Tensor) -> tf.Tensor:
        """For each image the row [N, ...] of another image of the whole batch."""
        batch = replicas.all_gather(rows, self.updates_per_step)
        # Images come in random order, so the next one is as good as any.
        return replicas.local_rows(tf.roll(batch, 1, axis=0), self.updates_per_step)

    def for_each_critic_batch(
        self,
        update: Callable[[CriticBatch], None],
        regions: Regions,
        real: tf.Tensor,
        fake: tf.Tensor,
        corpus: tf.Tensor | None = None,
    ) -> None:
        """Calls a critic update on one part of the step's images after another.

        Args:
            update: Updates the critic.
            regions: [N, R, D].
            real: Captions of the images, [N, K, T].
            fake: Generated captions, [N, K, T].
            corpus: Text without images, [N, K, T], if there is any.
        """
        if self.critic is None:
            return
        size = self.config.batch_size // replicas.count()
        false, replaced = self.false_captions(regions, real)
        references = References.others(real).drop(
            self.config.critic.reference_dropout, self.draw_seed()
        )

        def part(rows: tf.Tensor, index: tf.Tensor | int) -> tf.Tensor:
            parts = tf.reshape(rows, [self.updates_per_step, size, *rows.shape[1:]])
            return tf.gather(parts, index)

        def update_on_part(index: tf.Tensor | int) -> tuple[tf.Tensor | int]:
            batch = CriticBatch(
                regions=regions.map(lambda rows: part(rows, index)),
                real=part(real, index),
                fake=part(fake, index),
                false=part(false, index),
                replaced=part(replaced, index),
                references=References(*(part(rows, index) for rows in references)),
            )
            if corpus is not None:
                count = round(self.unconditional_share * size)
                batch = with_image_free(batch, part(corpus, index)[:count])
            update(batch)
            return (index + 1,)

        if replicas.several():
            # Cross-replica operations cannot run inside tf.while_loop.
            for index in range(self.updates_per_step):
                update_on_part(index)
            return
        # A loop in the graph: one update with its second derivatives is large enough to compile.
        tf.while_loop(lambda i: i < self.updates_per_step, update_on_part, (tf.constant(0),))

    def update_generator(
        self,
        batch: dict[str, tf.Tensor],
        regions: Regions,
        sample_loss: Callable[[Regions, Part], tf.Tensor],
    ) -> tf.Tensor:
        """Updates the generator, after the critic's warm-up; see `SamplingTrainer`."""

        def update() -> tf.Tensor:
            return super(AdversarialTrainer, self).update_generator(batch, regions, sample_loss)

        if self.critic is None or self.traced_step_kind == TRAINS_GENERATOR:
            return update()
        if self.traced_step_kind == TRAINS_CRITIC:
            return tf.constant(0.0)
        is_warm = self.critic_optimizer.iterations > self.warmup_updates
        return tf.cond(is_warm, update, lambda: tf.constant(0.0))


def with_image_free(batch: CriticBatch, corpus: tf.Tensor) -> CriticBatch:
    """Adds rows without an image: text [C, K, T] is real, the first generated captions are fake."""
    count = tf.shape(corpus)[0]
    fake = batch.fake[:count]
    regions = batch.regions.map(lambda rows: rows[:count]).blank()
    references = References(*(rows[:count] for rows in batch.references)).hidden()
    return CriticBatch(
        regions=batch.regions.concat(regions),
        real=tf.concat([batch.real, corpus], axis=0),
        fake=tf.concat([batch.fake, fake], axis=0),
        false=tf.concat([batch.false, fake], axis=0),
        replaced=tf.concat([batch.replaced, tf.zeros_like(fake, tf.bool)], axis=0),
        references=batch.references.concat(references),
    )
