"""Selection of captions by the critic.

B batch, N sampled captions per image, K selected captions per image, T time.
"""

import tensorflow as tf

from caption_gan.models.critics.critic import Critic
from caption_gan.models.decoding.decoder import Decoded
from caption_gan.models.encoders.encoder import Regions
from caption_gan.text.vocabulary import SPECIAL_IDS


def rerank(critic: Critic, regions: Regions, sampled: Decoded, count: int) -> Decoded:
    """Selects the captions that the critic ranks highest, best first.

    Args:
        critic: Ranks captions by score, corrected for length.
        regions: Of B images.
        sampled: N captions per image.
        count: K, at most N.

    Returns:
        K captions per image; their scores remain log-probabilities.
    """
    token_ids = tf.pad(
        sampled.token_ids, [[0, 0], [0, 0], [1, 0]], constant_values=SPECIAL_IDS.start
    )
    ranks = critic.rank(token_ids, critic.encode(regions))  # [B, N]
    best = tf.math.top_k(ranks, count).indices  # [B, K]
    return tf.nest.map_structure(
        lambda part: None if part is None else tf.gather(part, best, batch_dims=1), sampled
    )
