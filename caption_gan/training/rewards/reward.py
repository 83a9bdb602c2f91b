"""Rewards of generated captions, mixed by the weights in the settings.

To add a reward, write a class with the call of `Reward` in a file of this folder, give it a weight
in `RewardWeights`, and add a line to `build_rewards`.

N images, K captions per image, C real captions per image, T time, R regions, D region depth,
H image height, W image width.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import tensorflow as tf

from caption_gan.config.adversarial import RewardWeights
from caption_gan.models.encoders.encoder import Regions
from caption_gan.training.rewards.cider import CiderReward
from caption_gan.training.rewards.critic import CriticScore
from caption_gan.training.rewards.dual_encoder import DualEncoderReward


class Reward(Protocol):
    """Says how good generated captions are."""

    def __call__(
        self, regions: Regions, generated: tf.Tensor, batch: Mapping[str, tf.Tensor]
    ) -> tf.Tensor:
        """Rewards of captions, higher is better.

        Args:
            regions: Of the images, [N, R, D].
            generated: Token ids [N, K, T], with the start token and padding.
            batch: The images, `image` [N, H, W, 3] or what the encoder caches of them, `regions`;
                and `token_ids` [N, C, T], real captions of them.

        Returns:
            [N, K].
        """


@dataclass(frozen=True)
class WeightedReward:
    """A reward of the settings.

    Attributes:
        name: As in `RewardWeights`.
        weight: Weight of its normalised advantages.
        function: The reward.
    """

    name: str
    weight: float
    function: Reward

    @property
    def metric(self) -> str:
        """Name of the metric that shows its mean."""
        return f"{self.name}_reward"


def build_rewards(
    weights: RewardWeights,
    critic_score: CriticScore | None,
    references: Iterable[np.ndarray],
    dual_encoder: DualEncoderReward | None = None,
) -> list[WeightedReward]:
    """The rewards with a positive weight.

    Args:
        weights: Settings.
        critic_score: The critic's score, if there is a critic.
        references: Token ids [C, T] of the captions of each training image, without the start
            token; read only for CIDEr-D.
        dual_encoder: The dual encoder's reward, if the settings name one.
    """
    rewards = []
    if weights.cider:
        rewards.append(WeightedReward("cider", weights.cider, CiderReward(references)))
    if weights.critic and critic_score is not None:
        rewards.append(WeightedReward("critic", weights.critic, critic_score.reward))
    if weights.dual_encoder and dual_encoder is not None:
        rewards.append(WeightedReward("dual_encoder", weights.dual_encoder, dual_encoder))
    return rewards
