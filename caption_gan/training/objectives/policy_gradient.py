"""The objective `policy_gradient`: REINFORCE with a critic's scores as rewards.

N images a step, K captions an image, T time, R regions, D region depth.
"""

from typing import Any

import tensorflow as tf

from caption_gan.models.decoding import sampling
from caption_gan.models.decoding.constraints import mask_special_tokens
from caption_gan.models.encoders.encoder import Regions
from caption_gan.models.trace_scopes import REWARD, trace_scope
from caption_gan.text.vocabulary import END_ID, PAD_ID
from caption_gan.training import losses
from caption_gan.training.objectives.adversarial import Adversarial


class PolicyGradient(Adversarial):
    """A GAN that needs no gradient through words.

    The captions that the generator drew for an image are compared with each other: those that
    the critic likes better become likelier, the others less likely (Dai et al., 2017, with the
    baseline of Kool et al., 2019).
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
        advantages = self.advantages(regions, written, real, alone)  # [N, K]
        self.train_generator(
            batch, regions, lambda seen: self.generator_loss(seen, written, advantages, seed)
        )
        return self.get_metrics_result()

    @trace_scope(REWARD)
    def advantages(
        self, regions: Regions, written: tf.Tensor, real: tf.Tensor, alone: bool = False
    ) -> tf.Tensor:
        """How much better than the image's others captions [N, K, T] are, [N, K]."""
        words = self.critic.embedding(written)
        scores = self.appraise(words, written != PAD_ID, regions, alone)
        return losses.normalized(losses.leave_one_out(scores))

    def generator_loss(
        self, seen: Regions, written: tf.Tensor, advantages: tf.Tensor, seed: tf.Tensor
    ) -> tf.Tensor:
        """The policy's loss for captions that were written with that seed; a scalar.

        Args:
            seen: What the generator looks at, [N, R, D].
            written: [N, K, T].
            advantages: [N, K].
            seed: Two integers [2].
        """
        generator = self.captioner.generator
        images, captions, length = tf.unstack(tf.shape(written))
        noise = sampling.draw_noise(generator, images, captions, seed)
        read, write = written[..., :-1], written[..., 1:]  # [N, K, T - 1]
        logits = mask_special_tokens(generator.teacher_forcing(read, generator.encode(seen), noise))
        # The last place is always the end token, which was not drawn.
        drawn = (write != PAD_ID) & (tf.range(length - 1) < length - 2)
        log_probabilities = -tf.nn.sparse_softmax_cross_entropy_with_logits(
            tf.where(drawn, write, END_ID), logits
        )
        return losses.policy_loss(log_probabilities, advantages, drawn)
