"""The critic's score as a reward.

N images, K captions per image, T time, R regions, D region depth, E embedding.
"""

from collections.abc import Mapping

import tensorflow as tf

from caption_gan.models.critics.critic import Critic
from caption_gan.models.critics.references import References
from caption_gan.models.encoders.encoder import Regions
from caption_gan.text.vocabulary import PAD_ID


class CriticScore:
    """Scores captions by a critic, and adds its score without the image where it learns that.

    Args:
        critic: Scores captions.
        unconditional_share: Weight of the score without the image; 0 leaves it out.
    """

    def __init__(self, critic: Critic, unconditional_share: float = 0.0):
        self.critic = critic
        self.unconditional_share = unconditional_share

    def reward(
        self, regions: Regions, generated: tf.Tensor, batch: Mapping[str, tf.Tensor]
    ) -> tf.Tensor:
        """Rewards [N, K] of generated captions; see `Reward`."""
        return self(regions, generated, batch["token_ids"])

    def __call__(self, regions: Regions, generated: tf.Tensor, real: tf.Tensor) -> tf.Tensor:
        """Scores [N, K] of captions; arguments as of `score`, with token ids [N, K, T]."""
        return self.score(self.critic.embedding(generated), generated != PAD_ID, regions, real)

    def of_tokens(self, regions: Regions, generated: tf.Tensor, real: tf.Tensor) -> tf.Tensor:
        """Scores [N, K, T - 1] of every token but the first; arguments as of a call."""
        memory = self.critic.encode(regions, References.others(real))
        return self.critic.token_scores(self.critic.embedding(generated), memory)

    def score(
        self, embeddings: tf.Tensor, mask: tf.Tensor, regions: Regions, real: tf.Tensor
    ) -> tf.Tensor:
        """Scores [N, K] of captions that are given as embeddings, which a gradient can pass.

        Args:
            embeddings: [N, K, T, E].
            mask: [N, K, T].
            regions: [N, R, D].
            real: Real captions of the images, [N, K, T]: those at other places are references.
        """
        memory = self.critic.encode(regions, References.others(real))
        scores = self.critic(embeddings, mask, memory)
        if self.unconditional_share:
            no_image = self.critic.encode(regions.blank())
            scores += self.unconditional_share * self.critic(embeddings, mask, no_image)
        return scores
