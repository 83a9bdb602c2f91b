"""The objective `wgan_gp`: Algorithm 1 of Gulrajani et al. (2017) for captions.

"Improved Training of Wasserstein GANs", https://arxiv.org/abs/1704.00028. Line numbers in the code
are those of its Algorithm 1. What differs, and why:

* Captions are discrete. The critic reads word embeddings, and the generator's captions reach it
  through the straight-through Gumbel-softmax (Jang et al., 2017; for captions Shetty et al., 2017).
* A third of the negatives are people's captions that are false of the image (`negatives.py`).
  Without them nothing makes the critic look at the image, and captions name what is not there.
* The critic may read the image's other real captions (`references.py`), because a critic that sees
  what the generator sees, and starts from its weights, knows nothing that the generator does not.
* The penalty interpolates the mask too, because captions differ in length.
* The cross-entropy of real captions stays in the generator's loss (`mle_weight`): it preserves
  variety, which the critic does not reward.
* Every image has K real and K generated captions, so that it is encoded once for all of them.
* The generator's update sees the images of all critic updates of its step. They are encoded
  already, and a larger batch makes its gradient less noisy.

N images per step (n_critic x B), B images per critic update, K captions per image, T time,
R regions, D region depth, E embedding.
"""

from typing import Any

import tensorflow as tf

from caption_gan.distribution import replicas
from caption_gan.models.critics.critic import mean_score
from caption_gan.models.decoding import relaxation, sampling
from caption_gan.models.encoders.encoder import Regions
from caption_gan.models.generators.generator import Memory
from caption_gan.models.trace_scopes import CRITIC_UPDATE, PENALTY, trace_scope
from caption_gan.text.vocabulary import PAD_ID
from caption_gan.training import losses
from caption_gan.training.accumulation import accumulated_gradients
from caption_gan.training.losses import EmbeddedCaptions
from caption_gan.training.objectives.adversarial import AdversarialTrainer, CriticBatch

CRITIC_LOSSES = {"wasserstein": losses.wasserstein, "relativistic": losses.relativistic}
PENALTIES = {
    "gradient_penalty": losses.gradient_penalty,
    "one_sided_gradient_penalty": losses.one_sided_gradient_penalty,
}
# What parts of a critic update add up.
SUMMED_METRICS = ("critic_loss", "penalty", "margin", "mismatched_margin", "verdict_loss")
LENGTH_MOMENTS = ("length_squared", "length_score")


class WGANGP(AdversarialTrainer):
    """A Wasserstein GAN with gradient penalty; see `AdversarialTrainer` for the arguments."""

    def train_step(self, batch: dict[str, tf.Tensor]) -> dict[str, Any]:
        """One step: n_critic updates of the critic, then one of the generator (lines 2 to 12).

        Args:
            batch: {image [N, H, W, 3] | regions [N, R, D], token_ids [N, K, T]}, and
                `corpus_token_ids` [N, K, T] if there is text without images.
        """
        real = batch["token_ids"]  # [N, K, T]
        regions = self.captioner.regions(batch).map(tf.stop_gradient)  # [N, R, D]
        # Lines 4 and 5 for all critic updates at once: the generator does not change meanwhile.
        fake = self.sample_captions(regions, real.shape[-1], self.draw_seed())  # [N, K, T]
        # Lines 2 to 10: n_critic updates, each on B images of its own.
        corpus = batch.get("corpus_token_ids")
        self.for_each_critic_batch(self.critic_step, regions, real, fake, corpus)
        # Lines 11 and 12: one generator update on all N images.
        self.update_generator(
            batch,
            regions,
            lambda seen, part: (
                part.share(real) * self.generator_loss(seen, regions.map(part), part(real))
            ),
        )
        return self.get_metrics_result()

    @trace_scope(CRITIC_UPDATE)
    def critic_step(self, batch: CriticBatch) -> None:
        """One critic update (lines 6 to 9): raises real captions, lowers fake and false ones."""
        loss_scale = self.critic_optimizer.scale_loss(1.0)
        variables = self.critic.trainable_variables
        verdict_count = losses.token_count(
            losses.in_false_captions(batch.replaced[..., 1:], batch.false[..., 1:] != PAD_ID)
        )
        sums, gradients = accumulated_gradients(
            lambda part: self.critic_losses(
                batch.part(part), part.share(batch.real), verdict_count, loss_scale
            ),
            ("total", *SUMMED_METRICS, *LENGTH_MOMENTS),
            variables,
            self.config.accumulation_steps,
            loss_scale,
        )
        # Line 9. The optimizer also applies the weight constraints, if there are any.
        gradients = replicas.mean(gradients)
        self.critic_optimizer.apply(gradients, variables)
        self.critic.learn_lengths(tf.stack([sums[name] for name in LENGTH_MOMENTS]))
        self.update_metrics(
            loss_scale,
            **{name: sums[name] for name in SUMMED_METRICS if name in self.means},
            critic_gradient_norm=tf.linalg.global_norm(gradients) / loss_scale,
        )

    def critic_losses(
        self,
        batch: CriticBatch,
        weight: tf.Tensor | float,
        verdict_count: tf.Tensor,
        loss_scale: tf.Tensor | float,
    ) -> dict[str, tf.Tensor]:
        """Losses and metrics of a part of a critic update's images.

        Args:
            batch: The part.
            weight: Its share of the images.
            verdict_count: Tokens of near misses in all parts.
            loss_scale: Scale of the loss.
        """
        critic_loss_fn = CRITIC_LOSSES[self.config.critic_loss]
        share = self.config.mismatched_negatives
        memory = self.critic.encode(batch.regions, batch.references, training=True)
        token_ids = tf.concat([batch.real, batch.fake, batch.false], axis=1)  # [B, 3 K, T]
        embeddings, mask = self.critic.embedding(token_ids), token_ids != PAD_ID
        token_scores = self.critic.token_scores(embeddings, memory, training=True)
        score = mean_score(token_scores, mask)  # [B, 3 K]
        real_score, fake_score, false_score = tf.split(score, 3, axis=1)  # [B, K] each
        # Line 7: D(fake) - D(real), and the penalty.
        loss = (1 - share) * tf.reduce_mean(critic_loss_fn(real_score, fake_score))
        loss += share * tf.reduce_mean(critic_loss_fn(real_score, false_score))
        verdict_loss = self.verdict_loss(token_scores, batch, verdict_count)
        penalty = self.penalty(memory, embeddings, mask, loss_scale)
        moments = self.critic.length_statistics(fake_score, tf.split(mask, 3, axis=1)[1])
        means = {
            "total": loss + self.config.penalty_weight * penalty,
            "critic_loss": loss,
            "penalty": penalty,
            "margin": tf.reduce_mean(real_score) - tf.reduce_mean(fake_score),
            "mismatched_margin": tf.reduce_mean(real_score) - tf.reduce_mean(false_score),
            **dict(zip(LENGTH_MOMENTS, tf.unstack(moments), strict=True)),
        }
        parts = {name: weight * value for name, value in means.items()}
        parts["total"] += self.config.verdict_weight * verdict_loss
        return parts | {"verdict_loss": verdict_loss}

    def verdict_loss(
        self, token_scores: tf.Tensor, batch: CriticBatch, count: tf.Tensor
    ) -> tf.Tensor:
        """Loss of telling which tokens of near misses were replaced, a scalar; 0 without any.

        Args:
            token_scores: Of real, generated and false captions, [B, 3 K, T - 1].
            batch: The captions.
            count: Number of tokens to divide by.
        """
        if not self.config.near_misses:
            return tf.constant(0.0)
        of_false = tf.split(token_scores, 3, axis=1)[2]  # [B, K, T - 1]
        is_token = batch.false[..., 1:] != PAD_ID
        return losses.verdicts(of_false, batch.replaced[..., 1:], is_token, count)

    @trace_scope(PENALTY)
    def penalty(
        self, memory: Memory, embeddings: tf.Tensor, mask: tf.Tensor, loss_scale: tf.Tensor | float
    ) -> tf.Tensor:
        """Penalty on the critic's slope between real captions and negatives (line 6), a scalar.

        Args:
            memory: The critic's memory of the B images.
            embeddings: Real, generated and mismatched captions, [B, 3 K, T, E].
            mask: [B, 3 K, T].
            loss_scale: Scale of the loss.
        """
        if self.config.constraint not in PENALTIES:
            return tf.constant(0.0)

        # In training mode, as the memory is: what is bounded is the function that line 7 scores.
        def critic_fn(embeddings: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
            return self.critic(embeddings, mask, memory, training=True)

        mask = tf.cast(mask, embeddings.dtype)
        real, fake, mismatched = map(
            EmbeddedCaptions, tf.split(embeddings, 3, axis=1), tf.split(mask, 3, axis=1)
        )
        return PENALTIES[self.config.constraint](
            critic_fn,
            real,
            fake,
            self.seed_generator,
            mismatched=mismatched,
            mismatched_share=self.config.mismatched_negatives,
            loss_scale=loss_scale,
        )

    def generator_loss(
        self, regions: Regions, critic_regions: Regions, real: tf.Tensor
    ) -> tf.Tensor:
        """Generator loss, a scalar: -D(G(z)) of new captions (lines 11 and 12).

        Args:
            regions: What the generator looks at, [N, R, D].
            critic_regions: The same for the critic, without a gradient: otherwise the encoder
                could learn to please the critic.
            real: Real captions [N, K, T], which the relativistic loss compares with.
        """
        generator, seed = self.captioner.generator, self.draw_seed()
        images, captions = tf.unstack(tf.shape(real)[:2])
        noise = sampling.draw_noise(generator, images, captions, seed)
        fake = relaxation.rollout(
            generator, generator.encode(regions), noise, self.temperature, real.shape[-1], seed
        )
        embeddings = relaxation.embed(self.critic.embedding, fake)  # [N, K, T, E]
        mask = fake.token_ids != PAD_ID
        score = self.critic_score.score(embeddings, mask, critic_regions, real)  # [N, K]
        if self.config.critic_loss == "wasserstein":
            return -tf.reduce_mean(score)
        real_score = self.critic_score(critic_regions, real, real)
        return tf.reduce_mean(losses.relativistic(score, real_score))

    @property
    def temperature(self) -> tf.Tensor:
        """Temperature of the Gumbel-softmax; falls exponentially."""
        start, end = self.config.temperature, self.config.temperature_end
        return start * (end / start) ** self.progress
