"""The critic's choice among captions.

B batch, K captions an image that are kept, N captions an image that were drawn, T time.
"""

import tensorflow as tf

from caption_gan.models.critic import Critic
from caption_gan.models.decoding.sampling import Decoded
from caption_gan.models.encoders.encoder import Regions
from caption_gan.text.vocabulary import START_ID


def rerank(critic: Critic, regions: Regions, drawn: Decoded, keep: int) -> Decoded:
    """Keeps the captions that the critic likes best, their length aside; best first.

    Args:
        critic: Chooses.
        regions: [B, R, D].
        drawn: N captions an image.
        keep: K, at most N.

    Returns:
        K captions an image; their scores are still log-probabilities.
    """
    token_ids = tf.pad(drawn.token_ids, [[0, 0], [0, 0], [1, 0]], constant_values=START_ID)
    ranks = critic.rank(token_ids, critic.encode(regions))  # [B, N]
    chosen = tf.math.top_k(ranks, keep).indices  # [B, K]
    return Decoded(*(tf.gather(part, chosen, batch_dims=1) for part in drawn))
