"""The objective `self_critical`: CIDEr-D as the reward, mixed with a critic's score.

N images a step, K captions an image, T time, R regions, D region depth.
"""

from typing import Any

import tensorflow as tf

from caption_gan.distribution import replicas
from caption_gan.models.encoders.encoder import Regions
from caption_gan.models.trace_scopes import REWARD, trace_scope
from caption_gan.training import losses
from caption_gan.training.objectives.policy_gradient import PolicyGradient
from caption_gan.training.rewards.cider import CiderReward


class SelfCritical(PolicyGradient):
    """Self-critical sequence training (Rennie et al., 2017), in the graph.

    The baseline of a caption is the mean of the image's other captions and not the greedy one:
    it needs no decoding of its own and varies less (Luo, 2020). References are the real captions
    in the batch, so `captions` should be as many as an image has.

    Args:
        cider: The reward.
        **kwargs: Of `PolicyGradient`; without a critic, the reward is CIDEr-D alone.
    """

    def __init__(self, *args: Any, cider: CiderReward, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.cider = cider
        self.figures["reward"] = replicas.Mean(name="reward")

    @trace_scope(REWARD)
    def advantages(
        self, regions: Regions, written: tf.Tensor, real: tf.Tensor, alone: bool = False
    ) -> tf.Tensor:
        """How much better than the image's others captions [N, K, T] are, [N, K]."""
        scores = self.cider(written[..., 1:], real[..., 1:])
        self.report(reward=tf.reduce_mean(scores))
        advantages = losses.normalized(losses.leave_one_out(scores))
        if self.critic is None:
            return advantages
        share = self.config.critic_weight
        return (1 - share) * advantages + share * super().advantages(regions, written, real, alone)
