"""The objective `wgan_gp`: a Wasserstein GAN whose gradient passes relaxed captions.

N images a step, K captions an image, T time, R regions, D region depth.
"""

from typing import Any

import tensorflow as tf

from caption_gan.models.decoding import relaxation, sampling
from caption_gan.models.encoders.encoder import Regions
from caption_gan.text.vocabulary import PAD_ID
from caption_gan.training.objectives.adversarial import Adversarial


class WassersteinGAN(Adversarial):
    """Algorithm 1 of Gulrajani et al. (2017) for captions.

    The critic learns to score real captions above those that the generator writes freely, and
    above real captions of other images. The generator follows the critic's gradient through the
    words it drew, by the straight-through Gumbel-softmax (Jang et al., 2017; for captions
    Shetty et al., 2017), held by the anchor of maximum likelihood.
    """

    def train_step(self, batch: dict[str, tf.Tensor]) -> dict[str, Any]:
        """Several updates of the critic, one of the generator.

        Args:
            batch: {image [N, H, W, 3] | regions [N, R, D], token_ids [N, K, T]}, with `unpaired`
                [N, K, T] if there is text without images.
        """
        real, seed = batch["token_ids"], self.draw_seed()
        regions = self.captioner.regions(batch).map(tf.stop_gradient)  # [N, R, D]
        written = self.write(regions, real.shape[-1], seed)  # [N, K, T]
        self.train_critic(regions, real, written, batch.get("unpaired"))
        alone = "unpaired" in batch
        self.train_generator(
            batch, regions, lambda seen: self.generator_loss(regions, seen, real, alone)
        )
        return self.get_metrics_result()

    def generator_loss(
        self, regions: Regions, seen: Regions, real: tf.Tensor, alone: bool = False
    ) -> tf.Tensor:
        """How far the critic is from preferring what the generator writes; a scalar.

        Args:
            regions: What the critic looks at, [N, R, D]. Without a gradient: an encoder could
                please it by what it shows.
            seen: What the generator looks at, [N, R, D].
            real: [N, K, T].
            alone: Whether captions also count by themselves, see `appraise`.
        """
        generator, seed = self.captioner.generator, self.draw_seed()
        images, captions = tf.unstack(tf.shape(real)[:2])
        relaxed = relaxation.rollout(
            generator,
            generator.encode(seen),
            sampling.draw_noise(generator, images, captions, seed),
            self.temperature,
            real.shape[-1],
            seed,
        )
        words = relaxation.embed(self.critic.embedding, relaxed)
        score = self.appraise(words, relaxed.token_ids != PAD_ID, regions, alone)  # [N, K]
        if self.config.critic_loss == "wasserstein":
            return -tf.reduce_mean(score)
        real_score = self.appraise(self.critic.embedding(real), real != PAD_ID, regions, alone)
        return tf.reduce_mean(self.judge(score, real_score))

    @property
    def temperature(self) -> tf.Tensor:
        """Of the relaxation; falls exponentially."""
        start, end = self.config.temperature, self.config.temperature_end
        return start * (end / start) ** self.progress
