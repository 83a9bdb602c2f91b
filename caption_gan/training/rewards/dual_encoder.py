"""Retrieval of the own image by a dual encoder as a reward.

N images, K captions per image, T time, S size of vectors.
"""

from collections.abc import Mapping

import tensorflow as tf

from caption_gan.distribution import replicas
from caption_gan.models.dual_encoders.saved_model import DualEncoder
from caption_gan.models.encoders.encoder import Regions
from caption_gan.text.tokenizer import Tokenizer


class DualEncoderReward:
    """Log-probability that a caption is that of its image, among the images of the step.

    The plain cosine also rewards what is true of all images: a phrase that raises it for each of
    them changes no probability. The dual encoder is frozen and reads the batch's own images, also
    where the captioner's encoder is trained.

    Args:
        dual_encoder: Embeds images and captions.
        tokenizer: Turns token ids into captions.
    """

    def __init__(self, dual_encoder: DualEncoder, tokenizer: Tokenizer):
        self.dual_encoder = dual_encoder
        self.tokenizer = tokenizer

    def __call__(
        self, regions: Regions, generated: tf.Tensor, batch: Mapping[str, tf.Tensor]
    ) -> tf.Tensor:
        """Rewards [N, K] of generated captions, at most 0; see `Reward`."""
        images = self.dual_encoder.images(batch)  # [N, S]
        captions = self.tokenizer.detokenize(generated)  # [N, K]
        texts = self.dual_encoder.texts(tf.reshape(captions, [-1]))  # [N K, S]
        texts = tf.reshape(texts, [*tf.unstack(tf.shape(captions)), images.shape[-1]])  # [N, K, S]
        scale = self.dual_encoder.scale
        own = scale * tf.einsum("ns,nks->nk", images, texts)
        # Whatever the order of the replicas' images is, each caption is compared with all.
        everyone = replicas.all_gather(images, updates=1)
        others = scale * tf.einsum("as,nks->nka", everyone, texts)
        return own - tf.reduce_logsumexp(others, axis=-1)
