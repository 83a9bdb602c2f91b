"""Differentiable sampling: the straight-through Gumbel-softmax rollout.

B batch, K captions per image, T time, V vocabulary, E embedding, Z noise.
"""

from typing import Any, NamedTuple

import tensorflow as tf

from caption_gan.models.decoding.constraints import mask_special_tokens
from caption_gan.models.decoding.sampling import gumbel
from caption_gan.models.generators.generator import Generator, Memory
from caption_gan.models.trace_scopes import ROLLOUT, trace_scope
from caption_gan.text.embeddings import WordEmbedding
from caption_gan.text.vocabulary import SPECIAL_IDS, SpecialTokens


class Relaxed(NamedTuple):
    """Sampled captions and the relaxed one-hot vectors behind them."""

    token_ids: tf.Tensor  # [B, K, T]; start and end token included, then padding
    probabilities: tf.Tensor  # [B, K, T - 1, V]; without the start


def embed(embedding: WordEmbedding, relaxed: Relaxed) -> tf.Tensor:
    """Embeds sampled tokens, [B, K, T, E]; see `straight_through`."""
    start = tf.stop_gradient(embedding(relaxed.token_ids[..., :1]))
    others = straight_through(embedding, relaxed.probabilities, relaxed.token_ids[..., 1:])
    return tf.concat([start, others], axis=-2)


def straight_through(
    embedding: WordEmbedding, probabilities: tf.Tensor, token_ids: tf.Tensor
) -> tf.Tensor:
    """Embeds sampled tokens with the gradient of their mixture (straight-through).

    The values are exactly the embeddings of the tokens, as of a real caption (Jang et al., 2017).
    A critic that is given the mixtures tells them from real captions without reading them.
    The mixtures themselves, a product as large as that for the logits, are not computed.

    Args:
        embedding: The word embeddings.
        probabilities: Of the words, [..., V].
        token_ids: [...].

    Returns:
        [..., E].
    """
    hard = tf.stop_gradient(embedding(token_ids))

    @tf.custom_gradient
    def mixed(hard: tf.Tensor, probabilities: tf.Tensor, matrix: tf.Tensor) -> Any:
        def gradient(upstream: tf.Tensor) -> tuple[None, tf.Tensor, tf.Tensor]:
            flat = tf.reshape(upstream, [-1, matrix.shape[1]])  # [N, E]
            rows = tf.reshape(probabilities, [-1, matrix.shape[0]])  # [N, V]
            of_probabilities = tf.matmul(flat, matrix, transpose_b=True)
            return (
                None,
                tf.reshape(of_probabilities, tf.shape(probabilities)),
                tf.matmul(rows, flat, transpose_a=True),
            )

        return tf.identity(hard), gradient

    return mixed(hard, probabilities, tf.cast(embedding.embeddings.value, probabilities.dtype))


@trace_scope(ROLLOUT)
def rollout(
    generator: Generator,
    memory: Memory,
    noise: tf.Tensor,
    temperature: tf.Tensor,
    sequence_length: int,
    seed: tf.Tensor,
    special_tokens: SpecialTokens = SPECIAL_IDS,
) -> Relaxed:
    """Samples captions; each sampled token is the next input (Jang et al., 2017).

    Args:
        generator: Predicts the tokens.
        memory: Of the B images.
        noise: [B, K, Z].
        temperature: Of the relaxation. Low ones are close to the sampled one-hot vectors and have
            a large, noisy gradient. Tokens are sampled at temperature 1 in any case.
        sequence_length: T.
        seed: Two integers [2].
        special_tokens: Ids of the special tokens.
    """
    pad_id, start_id, end_id = special_tokens[:3]
    embedding = generator.embedding
    state = generator.initial_state(memory, noise, sequence_length - 1)
    token = tf.fill(tf.shape(noise)[:2], start_id)  # [B, K]
    embedded = embedding(token)  # [B, K, E]
    finished = tf.zeros_like(token, tf.bool)
    token_ids, mixtures = [token], []
    for time in range(sequence_length - 1):
        logits, state, _ = generator.decode_step_embedded(embedded, state, memory)  # [B, K, V]
        logits_shape = tf.shape(logits)
        perturbed = mask_special_tokens(logits, special_tokens) + gumbel(logits_shape, seed, time)
        probabilities = tf.nn.softmax(perturbed / temperature)
        token = tf.argmax(perturbed, axis=-1, output_type=tf.int32)
        if time == sequence_length - 2:
            token = tf.fill(tf.shape(token), end_id)
        token = tf.where(finished, pad_id, token)
        finished |= token == end_id
        embedded = straight_through(embedding, probabilities, token)
        token_ids.append(token)
        mixtures.append(probabilities)
    return Relaxed(tf.stack(token_ids, axis=-1), tf.stack(mixtures, axis=-2))
