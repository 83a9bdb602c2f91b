"""The objective `self_play`: SPIN (Chen et al., 2024) for captions, a GAN without a second network.

"Self-Play Fine-Tuning Converts Weak Language Models to Strong Language Models",
https://arxiv.org/abs/2401.01335. The opponent is the generator of some steps ago. It writes a
caption y' of image x beside a real caption y, and the critic that tells them apart is the
generator's own log-ratio to the opponent, a sum over the tokens of a caption:

    r(y) = beta (log p(y | x, z) - log q(y | x, z))     p: generator, q: opponent, z: noise
    loss = mean of -log sigmoid(r(y) - r(y'))           over all pairs (y, y') of an image

For q fixed and beta 1 the best critic is log(p_data / q), so that the best generator is the data's
distribution. Every `opponent_steps` steps the generator becomes the opponent, which must be told
from people anew. What differs from the paper, and why:

* An image has K real and K generated captions, of which all K x K pairs are compared: it is encoded
  once, and more pairs make the gradient less noisy.
* Generator and opponent read a caption with the same noise z; for a generated caption it is the one
  it was sampled with. So r is a log-ratio of two distributions over captions, and it is exactly 0
  for all captions when the generator becomes the opponent. For the same reason r has no dropout.
* Only tokens that sampling could have chosen count: the opponent never writes the token for unknown
  words, which would tell real captions apart without reading them.
* The cross-entropy of real captions stays in the loss (`mle_weight`), because r(y) - r(y') also
  grows while both captions become less likely.

N images per step, K captions per image, T time, R regions, D region depth, Z noise.
"""

from typing import Any

import tensorflow as tf

from caption_gan.config.self_play import SelfPlayConfig
from caption_gan.distribution import replicas
from caption_gan.models.captioner import Captioner
from caption_gan.models.decoding import sampling
from caption_gan.models.encoders.encoder import Regions
from caption_gan.models.trace_scopes import REWARD
from caption_gan.training import losses
from caption_gan.training.accumulation import Part
from caption_gan.training.objectives.sampling_trainer import (
    SamplingTrainer,
    token_log_probabilities,
)

SELF_PLAY_METRICS = (
    "self_play_loss",
    "margin",  # Of the log-ratio of real over that of generated captions, in nats per caption.
    "win_rate",  # Share of pairs in which the real caption has the higher log-ratio.
)


class SelfPlay(SamplingTrainer):
    """Trains a captioner to tell real captions from its own earlier ones; see `Trainer`."""

    def __init__(self, captioner: Captioner, config: SelfPlayConfig, steps: int, seed: int):
        super().__init__(captioner, config, steps, seed)
        self.opponent = captioner.copy()
        self.opponent.trainable = False
        for name in SELF_PLAY_METRICS:
            self.means[name] = replicas.Mean(name=name)

    def train_step(self, batch: dict[str, tf.Tensor]) -> dict[str, Any]:
        """One step: the opponent writes captions, then the generator is updated.

        Args:
            batch: {image [N, H, W, 3] | regions [N, R, D], token_ids [N, K, T]}.
        """
        real, seed = batch["token_ids"], self.draw_seed()  # [N, K, T]
        regions = self.captioner.regions(batch).map(tf.stop_gradient)  # [N, R, D]
        # Unless the encoder is trained, both see the same.
        opponent_regions = self.opponent.regions(batch) if self.config.train_encoder else regions
        opponent = self.opponent.generator
        generated = self.sample_captions(opponent_regions, real.shape[-1], seed, opponent)
        captions = tf.concat([real, generated], axis=1)  # [N, 2 K, T]
        images, count = tf.unstack(tf.shape(real)[:2])
        noise = sampling.draw_noise(opponent, images, count, seed)
        noise = tf.concat([noise, noise], axis=1)  # [N, 2 K, Z]
        with tf.name_scope(REWARD):
            opponent_score = self.log_probability(self.opponent, opponent_regions, captions, noise)

        def self_play_loss(seen: Regions, part: Part) -> tf.Tensor:
            score = self.log_probability(self.captioner, seen, part(captions), part(noise))
            ratios = tf.split(score - part(opponent_score), 2, axis=1)
            return part.share(captions) * self.self_play_loss(*ratios)

        self.update_generator(batch, regions, self_play_loss)
        return self.get_metrics_result()

    def log_probability(
        self, captioner: Captioner, regions: Regions, captions: tf.Tensor, noise: tf.Tensor
    ) -> tf.Tensor:
        """Log-probability of whole captions [N, 2 K, T] in nats, [N, 2 K]."""
        values, counts = token_log_probabilities(captioner.generator, regions, captions, noise)
        return tf.reduce_sum(values * tf.cast(counts, values.dtype), axis=-1)

    def self_play_loss(self, real: tf.Tensor, generated: tf.Tensor) -> tf.Tensor:
        """Logistic loss of all pairs of an image, a scalar.

        Args:
            real: Log-ratios of generator to opponent of real captions, [N, K].
            generated: The same of generated captions, [N, K].
        """
        real, generated = real[:, :, None], generated[:, None, :]  # [N, K, 1], [N, 1, K]
        beta = self.config.beta
        loss = tf.reduce_mean(losses.relativistic(beta * real, beta * generated))
        margin = real - generated  # [N, K, K]
        self.update_metrics(
            self_play_loss=loss,
            margin=tf.reduce_mean(margin),
            # Ties count half: against an equal opponent all pairs are ties, but for rounding.
            win_rate=tf.reduce_mean((1 + tf.sign(tf.round(1e4 * margin))) / 2),
        )
        return loss

    def after_step(self) -> None:
        """Lets the generator become the opponent, every `opponent_steps` steps."""
        super().after_step()
        is_due = self.optimizer.iterations % self.config.opponent_steps == 0
        # A choice of values: replicas cannot assign to their variables inside tf.cond.
        for new, old in zip(self.captioner.weights, self.opponent.weights, strict=True):
            old.value.assign(tf.where(is_due, new.value, old.value))
