"""Captions that a gradient can pass: the straight-through Gumbel-softmax rollout.

B batch, K captions an image, T time, V vocabulary, Z noise.
"""

from typing import NamedTuple

import tensorflow as tf

from caption_gan.models.decoding.constraints import mask_special_tokens
from caption_gan.models.decoding.sampling import gumbel
from caption_gan.models.generators.gru import GRUGenerator, Memory
from caption_gan.models.trace_scopes import ROLLOUT, trace_scope
from caption_gan.text.embeddings import WordEmbedding
from caption_gan.text.vocabulary import END_ID, PAD_ID, START_ID


class Relaxed(NamedTuple):
    """Captions as they were drawn, and what they were drawn from."""

    token_ids: tf.Tensor  # [B, K, T]; start and end token included, then padding
    probabilities: tf.Tensor  # [B, K, T - 1, V]; without the start


def embed(embedding: WordEmbedding, relaxed: Relaxed) -> tf.Tensor:
    """Embeddings [B, K, T, E] of the words that were drawn, with the gradient of their mixture.

    They are exactly what a real caption's words would be. A critic that is shown the mixtures
    themselves tells them from real words without reading them (Jang et al., 2017, call this
    straight-through).
    """
    mixed = embedding.embed_soft(relaxed.probabilities)  # [B, K, T - 1, E]
    drawn = tf.stop_gradient(embedding(relaxed.token_ids))  # [B, K, T, E]
    start, drawn = drawn[..., :1, :], drawn[..., 1:, :]
    return tf.concat([start, mixed + tf.stop_gradient(drawn - mixed)], axis=-2)


@trace_scope(ROLLOUT)
def rollout(
    generator: GRUGenerator,
    memory: Memory,
    noise: tf.Tensor,
    temperature: tf.Tensor,
    sequence_length: int,
    seed: tf.Tensor,
) -> Relaxed:
    """Draws captions freely, each word read as it was drawn (Jang et al., 2017).

    Args:
        generator: Writes.
        memory: Of the B images.
        noise: [B, K, Z].
        temperature: Of the relaxation: low ones are close to what was drawn and have a gradient
            that is large and noisy. The words are drawn at temperature one whatever it is.
        sequence_length: T.
        seed: Two integers [2].
    """
    embedding = generator.embedding
    states = generator.initial_state(memory, noise)
    drawn = tf.fill(tf.shape(noise)[:2], START_ID)  # [B, K]
    words = embedding(drawn)
    finished = tf.zeros_like(drawn, tf.bool)
    token_ids, mixtures = [drawn], []
    for time in range(sequence_length - 1):
        logits, states, _ = generator.decode_step_embedded(words, states, memory)  # [B, K, V]
        perturbed = mask_special_tokens(logits) + gumbel(tf.shape(logits), seed, time)
        probabilities = tf.nn.softmax(perturbed / temperature)
        drawn = tf.argmax(perturbed, axis=-1, output_type=tf.int32)
        if time == sequence_length - 2:
            drawn = tf.fill(tf.shape(drawn), END_ID)
        drawn = tf.where(finished, PAD_ID, drawn)
        finished |= drawn == END_ID
        mixed = embedding.embed_soft(probabilities)
        words = mixed + tf.stop_gradient(embedding(drawn) - mixed)
        token_ids.append(drawn)
        mixtures.append(probabilities)
    return Relaxed(tf.stack(token_ids, axis=-1), tf.stack(mixtures, axis=-2))
