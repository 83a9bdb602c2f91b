"""The objectives `policy_gradient` and `self_critical`: REINFORCE on rewards of whole captions.

`policy_gradient` rewards captions by the critic's score (Dai et al., 2017), `self_critical` by
CIDEr-D (Rennie et al., 2017); a dual encoder can reward captions that retrieve their image (Chaffin
et al., 2024). The settings `rewards` hold the weights of a mix. The baseline of a caption is the
mean reward of the image's other captions (Kool et al., 2019): unlike the greedy caption's reward it
needs no decoding of its own, and it varies less (Luo, 2020). With `discount`, the critic rewards
each word instead of the whole caption. For CIDEr-D the references are the real captions of the
batch, so `captions` should be as many as an image has.

N images per step, K captions per image, T time, R regions, D region depth.
"""

import functools
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from caption_gan.config.adversarial import PolicyGradientConfig
from caption_gan.distribution import replicas
from caption_gan.models.captioner import Captioner
from caption_gan.models.critics.critic import mean_score
from caption_gan.models.decoding import sampling
from caption_gan.models.encoders.encoder import Regions
from caption_gan.models.trace_scopes import REWARD, trace_scope
from caption_gan.text.vocabulary import PAD_ID
from caption_gan.training import losses
from caption_gan.training.objectives.sampling_trainer import (
    can_be_sampled,
    token_log_probabilities,
)
from caption_gan.training.objectives.wgan_gp import WGANGP
from caption_gan.training.rewards.dual_encoder import DualEncoderReward
from caption_gan.training.rewards.reward import build_rewards


class PolicyGradient(WGANGP):
    """A GAN whose generator needs no gradient through words.

    The critic is trained as in `wgan_gp`. Sampled captions of an image are compared with each
    other: those with a higher reward become likelier, the others less likely. See
    `AdversarialTrainer` for the arguments.
    """

    def __init__(
        self,
        captioner: Captioner,
        config: PolicyGradientConfig,
        steps: int,
        seed: int,
        reads_corpora: bool = False,
        references: Iterable[np.ndarray] = (),
        dual_encoder: DualEncoderReward | None = None,
    ):
        super().__init__(captioner, config, steps, seed, reads_corpora)
        self.rewards = build_rewards(config.rewards, self.critic_score, references, dual_encoder)
        for reward in self.rewards:
            self.means[reward.metric] = replicas.Mean(name=reward.metric)

    def train_step(self, batch: dict[str, tf.Tensor]) -> dict[str, Any]:
        """One step: n_critic updates of the critic, then one of the generator.

        Args:
            batch: {image [N, H, W, 3] | regions [N, R, D], token_ids [N, K, T]}, and
                `corpus_token_ids` [N, K, T] if there is text without images.
        """
        real, seed = batch["token_ids"], self.draw_seed()
        regions = self.captioner.regions(batch).map(tf.stop_gradient)  # [N, R, D]
        sampled = self.sample_captions(regions, real.shape[-1], seed)  # [N, K, T]
        corpus = batch.get("corpus_token_ids")
        self.for_each_critic_batch(self.critic_step, regions, real, sampled, corpus)
        advantages = self.advantages(regions, sampled, batch)  # [N, K, T - 1]
        # The same noise gives the distribution that the captions were sampled from.
        images, captions = tf.unstack(tf.shape(sampled)[:2])
        noise = sampling.draw_noise(self.captioner.generator, images, captions, seed)
        count = losses.token_count(can_be_sampled(sampled))
        self.update_generator(
            batch,
            regions,
            lambda seen, part: self.policy_loss(
                seen, part(sampled), part(advantages), part(noise), count
            ),
        )
        return self.get_metrics_result()

    @trace_scope(REWARD)
    def advantages(
        self, regions: Regions, sampled: tf.Tensor, batch: Mapping[str, tf.Tensor]
    ) -> tf.Tensor:
        """Advantages of sampled captions [N, K, T] over the image's other captions.

        Args:
            regions: [N, R, D].
            sampled: [N, K, T].
            batch: As of `train_step`.

        Returns:
            Of every token but the first, [N, K, T - 1]; [N, K, 1] if they are the same for all.
        """
        advantages = []
        for reward in self.rewards:
            if reward.name == "critic" and self.config.discount is not None:
                values, advantage = self.token_advantages(regions, sampled, batch["token_ids"])
            else:
                values = reward.function(regions, sampled, batch)  # [N, K]
                advantage = losses.normalized(losses.leave_one_out(values))[..., None]
            self.update_metrics(**{reward.metric: tf.reduce_mean(values)})
            advantages.append(reward.weight * advantage)
        return functools.reduce(tf.add, advantages)

    def token_advantages(
        self, regions: Regions, sampled: tf.Tensor, real: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """The critic's scores of captions [N, K] and the advantages of tokens [N, K, T - 1].

        A token is answerable for its own score and, less and less, for those after it (de Masson
        d'Autume et al., 2019).
        """
        is_token = sampled[..., 1:] != PAD_ID  # [N, K, T - 1]
        scores = self.critic_score.of_tokens(regions, sampled, real)  # [N, K, T - 1]
        values = mean_score(scores, sampled != PAD_ID)  # [N, K]
        above = tf.where(is_token, scores - losses.mean_of_others(values)[..., None], 0.0)
        advantage = tf.where(is_token, losses.discounted(above, self.config.discount), 0.0)
        return values, losses.normalized(advantage, is_token)

    def policy_loss(
        self,
        regions: Regions,
        sampled: tf.Tensor,
        advantages: tf.Tensor,
        noise: tf.Tensor,
        count: tf.Tensor | None = None,
    ) -> tf.Tensor:
        """REINFORCE loss, a scalar.

        Args:
            regions: What the generator looks at, [N, R, D].
            sampled: Sampled captions, [N, K, T].
            advantages: [N, K, T - 1] or [N, K, 1].
            noise: That they were sampled with, [N, K, Z].
            count: Number of tokens to divide by; see `losses.token_count`.
        """
        log_probabilities, was_sampled = token_log_probabilities(
            self.captioner.generator, regions, sampled, noise
        )
        return losses.policy_loss(log_probabilities, advantages, was_sampled, count)
