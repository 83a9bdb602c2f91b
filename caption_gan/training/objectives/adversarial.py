"""What the objectives with a critic have in common: how the critic is trained, and the anchor.

N images a step (critic updates x batch size), B images an update of the critic, K captions an
image, T time, R regions, D region depth, E embedding.
"""

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from caption_gan.config.objectives import AdversarialConfig
from caption_gan.distribution import precision, replicas
from caption_gan.models.captioner import Captioner
from caption_gan.models.critic import Critic, build_critic
from caption_gan.models.decoding import sampling
from caption_gan.models.encoders.encoder import Regions
from caption_gan.models.trace_scopes import CRITIC_UPDATE, GENERATOR_UPDATE, trace_scope
from caption_gan.text.vocabulary import PAD_ID, START_ID
from caption_gan.training import losses, weight_constraints
from caption_gan.training.critic_penalty import critic_penalty
from caption_gan.training.objectives.negatives import most_alike
from caption_gan.training.objectives.trainer import Objective
from caption_gan.training.optimizers import Adam, build_optimizer

TRAINS_GENERATOR = "trains the generator"
# `report` takes others too.
GENERATOR_FIGURES = ("loss", "anchor_loss", "generator_gradient_norm")
CRITIC_MARGINS = ("margin", "mismatched_margin")
CRITIC_FIGURES = ("critic_loss", "penalty", "critic_gradient_norm", *CRITIC_MARGINS)


class Adversarial(Objective):
    """A generator and its critic.

    Args:
        captioner: Encoder and generator.
        critic: Scores captions; None where rewards do not come from it.
        config: Settings of the objective.
        steps: Number of training steps, over which schedules run.
        seed: Of everything random.
    """

    def __init__(
        self,
        captioner: Captioner,
        critic: Critic | None,
        config: AdversarialConfig,
        steps: int,
        seed: int,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.captioner = captioner
        self.critic: Any = critic
        self.config: Any = config
        self.steps = steps
        self.seed_generator = replicas.SeedGenerator(seed)
        names = GENERATOR_FIGURES if critic is None else GENERATOR_FIGURES + CRITIC_FIGURES
        self.figures = {name: replicas.Mean(name=name) for name in names}
        self.judge = getattr(losses, config.critic_loss)
        self.built = True

    @classmethod
    def stage(
        cls,
        captioner: Captioner,
        config: AdversarialConfig,
        steps: int,
        seed: int,
        **kwargs: Any,
    ) -> "Adversarial":
        """Builds and compiles the objective as a stage of a run of so many steps."""
        critic = build_critic(captioner.generator, config.critic) if config.has_critic else None
        model = cls(captioner, critic, config, steps, seed, **kwargs)
        optimizer = build_optimizer(
            max(steps - config.critic_steps, 1),
            learning_rate=config.learning_rate,
            matrix_learning_rate=0.0,
            warmup=0.05,
            weight_decay=0.0,
            gradient_clip=config.gradient_clip,
        )
        # Momentum carries the critic past where it should be, as the generator moves meanwhile.
        critic_optimizer = Adam(
            config.critic_learning_rate,
            beta_1=0.5,
            beta_2=0.9,
            global_clipnorm=config.gradient_clip,
        )
        model.compile(optimizer, precision.scaled(critic_optimizer))
        return model

    def compile(
        self,
        optimizer: keras.optimizers.Optimizer,
        critic_optimizer: keras.optimizers.Optimizer,
    ) -> None:
        """Sets the optimizers of the generator and of the critic."""
        super().compile(optimizer=optimizer, jit_compile=False)
        self.critic_optimizer = critic_optimizer
        optimizer.build(self.generator_variables)
        critic_optimizer.build(self.critic.trainable_variables if self.critic else [])

    def test_step(self, batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Cross-entropy of a validation batch, in nats a token, as of `maximum_likelihood`."""
        regions, real = self.captioner.regions(batch), batch["token_ids"]
        self.report(loss=self.anchor(regions, real, training=False))
        return {"loss": self.figures["loss"].result()}

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        return list(self.figures.values())

    @property
    def generator_variables(self) -> list[keras.Variable]:
        """What the generator's update trains."""
        network = self.captioner if self.config.train_encoder else self.captioner.generator
        return network.trainable_variables

    @property
    def updates(self) -> int:
        """Updates of the critic a step."""
        return self.config.critic_updates if self.critic else 1

    @property
    def warmup(self) -> int:
        """Updates of the critic before the generator is trained."""
        return self.config.critic_steps * self.config.critic_updates

    @property
    def course(self) -> str | None:
        """Whether the next step trains the generator."""
        if not replicas.several():
            return None
        if self.critic is None:
            return TRAINS_GENERATOR
        updates = int(keras.ops.convert_to_numpy(self.critic_optimizer.iterations)) + self.updates
        return TRAINS_GENERATOR if updates > self.warmup else "trains the critic"

    @property
    def settled(self) -> bool:
        """Whether the critic is warm; a single replica sees that for itself."""
        return self.course in (None, TRAINS_GENERATOR)

    def report(self, scale: tf.Tensor | float = 1.0, **figures: tf.Tensor) -> None:
        """Takes figures of a step into the means of the epoch.

        Args:
            scale: Of the loss. While it can be lowered, a figure that is not finite only says that
                it was too large, and does not count.
            **figures: By name.
        """
        means = tf.unstack(replicas.mean(tf.stack(list(figures.values()))), num=len(figures))
        for name, value in zip(figures, means, strict=True):
            counts = tf.math.is_finite(value) | (scale <= 1.0)
            self.figures[name].update_state(tf.where(counts, value, 0.0), counts)

    def draw_seed(self) -> tf.Tensor:
        """Two integers [2] for stateless random operations; others at each call."""
        # Decoding adds the time to the second, which would be that of the seeds that follow.
        return tf.cast(self.seed_generator.next(), tf.int32) * [1, 1024]

    @property
    def progress(self) -> tf.Tensor:
        """Share of the training that is done, in [0, 1]."""
        done = tf.cast(self.optimizer.iterations, tf.float32)
        return tf.minimum(done / max(self.steps - self.config.critic_steps, 1), 1.0)

    def write(self, regions: Regions, length: int, seed: tf.Tensor) -> tf.Tensor:
        """Captions [N, K, T] that the generator draws, in the form of real ones."""
        decoded = sampling.sample(
            self.captioner.generator, regions, length, self.config.captions, seed
        )
        return tf.pad(decoded.token_ids, [[0, 0], [0, 0], [1, 0]], constant_values=START_ID)

    def train_critic(
        self,
        regions: Regions,
        real: tf.Tensor,
        written: tf.Tensor,
        unpaired: tf.Tensor | None = None,
    ) -> None:
        """Updates the critic on one part of the step's images after another.

        Args:
            regions: [N, R, D].
            real: Captions of the images, [N, K, T].
            written: Captions that the generator wrote, [N, K, T].
            unpaired: Text without images, [N, K, T], if there is any.
        """
        if self.critic is None:
            return
        size = self.config.batch_size // replicas.count()
        # Images come in random order, so that any other one may as well be the next.
        every = replicas.all_gather(real, self.updates)
        alike = self.config.mismatches == "alike"
        mismatched = tf.gather(every, most_alike(every)) if alike else tf.roll(every, 1, axis=0)
        mismatched = replicas.local_rows(mismatched, self.updates)

        def part_of(rows: tf.Tensor, index: tf.Tensor | int) -> tf.Tensor:
            return tf.gather(tf.reshape(rows, [self.updates, size, *rows.shape[1:]]), index)

        def update(index: tf.Tensor | int) -> tuple[tf.Tensor | int]:
            seen = regions.map(lambda rows: part_of(rows, index))
            rows = [part_of(every, index) for every in (real, written, mismatched)]
            if unpaired is not None:
                # Rows without an image, in which text is real and whatever was written is not.
                blind = round(self.config.unpaired * size)
                seen = seen.concat(seen.map(lambda rows: rows[:blind]).blank())
                own = rows[1][:blind]
                more = [part_of(unpaired, index)[:blind], own, own]
                rows = [tf.concat(both, axis=0) for both in zip(rows, more, strict=True)]
            self.update_critic(seen, *rows)
            return (index + 1,)

        if replicas.several():  # They can only meet outside of loops.
            for index in range(self.updates):
                update(index)
            return
        # A loop, because the graph of one update with its second derivatives is large enough.
        tf.while_loop(lambda index: index < self.updates, update, (tf.constant(0),))

    def appraise(
        self, words: tf.Tensor, mask: tf.Tensor, regions: Regions, alone: bool
    ) -> tf.Tensor:
        """The critic's scores of captions, [N, K], as the generator should raise them.

        Args:
            words: Embeddings [N, K, T, E].
            mask: [N, K, T].
            regions: [N, R, D].
            alone: Whether a caption also counts by its score without the image, which there is
                text for.
        """
        scores = self.critic(words, mask, self.critic.encode(regions))
        if alone:
            nothing = self.critic.encode(regions.blank())
            scores += self.config.unpaired * self.critic(words, mask, nothing)
        return scores

    @trace_scope(CRITIC_UPDATE)
    def update_critic(
        self, regions: Regions, real: tf.Tensor, written: tf.Tensor, mismatched: tf.Tensor
    ) -> None:
        """One update on B images: real captions up, written ones and those of others down."""
        captions, scale = self.config.captions, self.critic_optimizer.scale_loss(1.0)
        with tf.GradientTape() as tape:
            memory = self.critic.encode(regions, training=True)
            token_ids = tf.concat([real, written, mismatched], axis=1)  # [B, 3 K, T]
            words, mask = self.critic.embedding(token_ids), token_ids != PAD_ID
            scores = self.critic(words, mask, memory, training=True)
            real_score, written_score, mismatched_score = (
                scores[:, start : start + captions] for start in range(0, 3 * captions, captions)
            )
            share = self.config.mismatched
            loss = (1 - share) * tf.reduce_mean(self.judge(real_score, written_score))
            loss += share * tf.reduce_mean(self.judge(real_score, mismatched_score))
            penalty = critic_penalty(
                self.critic, memory, words, mask, self.config, self.seed_generator, scale
            )
            total = scale * (loss + self.config.penalty_weight * penalty)
        variables = self.critic.trainable_variables
        gradients = replicas.mean(tape.gradient(total, variables))
        self.critic_optimizer.apply(gradients, variables)
        weight_constraints.apply(self.config.constraint, variables, self.config.clip_value)
        self.critic.learn_lengths(written_score, mask[:, captions : 2 * captions])
        self.report(
            scale,
            critic_loss=loss,
            penalty=penalty,
            margin=tf.reduce_mean(real_score) - tf.reduce_mean(written_score),
            mismatched_margin=tf.reduce_mean(real_score) - tf.reduce_mean(mismatched_score),
            critic_gradient_norm=tf.linalg.global_norm(gradients) / scale,
        )

    def train_generator(self, batch: dict[str, tf.Tensor], regions: Regions, loss: Callable):
        """Updates the generator, once the critic is warm.

        Args:
            batch: The step's images and captions.
            regions: [N, R, D], of an encoder that is not trained.
            loss: From regions [N, R, D], maybe with a gradient, to the adversarial loss.
        """

        @trace_scope(GENERATOR_UPDATE)
        def update() -> tf.Tensor:
            scale = self.optimizer.scale_loss(1.0)
            with tf.GradientTape() as tape:
                seen = self.captioner.regions(batch, True) if self.config.train_encoder else regions
                anchor = self.anchor(seen, batch["token_ids"])
                start, end = self.config.anchor, self.config.anchor_end
                total = loss(seen) + (start + (end - start) * self.progress) * anchor
                scaled = scale * total
            variables = self.generator_variables
            gradients = replicas.mean(tape.gradient(scaled, variables))
            self.optimizer.apply(gradients, variables)
            self.report(
                scale,
                loss=total,
                anchor_loss=anchor,
                generator_gradient_norm=tf.linalg.global_norm(gradients) / scale,
            )
            return total

        if self.critic is None or self.in_course == TRAINS_GENERATOR:
            update()
        elif self.in_course is None:
            warm = self.critic_optimizer.iterations > self.warmup
            tf.cond(warm, update, lambda: tf.constant(0.0))

    def anchor(self, regions: Regions, real: tf.Tensor, training: bool = True) -> tf.Tensor:
        """Cross-entropy of real captions, in nats a token; without noise outside training."""
        generator = self.captioner.generator
        read, write = real[..., :-1], real[..., 1:]
        images, captions = tf.unstack(tf.shape(read)[:2])
        noise = tf.zeros([images, captions, generator.noise_size])
        if training:
            noise = sampling.draw_noise(generator, images, captions, self.draw_seed())
        memory = generator.encode(regions, training)
        logits = generator.teacher_forcing(read, memory, noise, training)
        return losses.cross_entropy(logits, write, write != PAD_ID)
