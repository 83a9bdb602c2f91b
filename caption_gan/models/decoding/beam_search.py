"""Beam search: the likeliest captions rather than the likeliest next token.

B batch, W width of all beams, G groups of beams, w width of a group (W / G), T time,
V vocabulary, R regions.
"""

from typing import NamedTuple

import tensorflow as tf

from caption_gan.models.decoding.decoder import (
    Decoded,
    Decoder,
    DecodingOptions,
    RegionsOrSeveral,
    batch_and_regions,
)
from caption_gan.models.trace_scopes import ROLLOUT, trace_scope

BLOCK = 100  # Size of the blocks in which `_largest` searches.


class Beams(NamedTuple):
    """Captions of each image.

    Attributes:
        totals: [B, W]; log-probabilities or ranks, -inf where there is no caption yet.
        token_ids: [B, W, T].
        origins: [B, W, T]; the beam in which each token was predicted. Captions move from beam to
            beam, and the attention of a token is stored by beam.
    """

    totals: tf.Tensor
    token_ids: tf.Tensor
    origins: tf.Tensor


@trace_scope(ROLLOUT)
def beam_search(generator: Decoder, regions: RegionsOrSeveral, options: DecodingOptions) -> Decoded:
    """Searches the W best captions per image, best first; the noise is zero.

    A caption that ends moves from the beam to a list of the W best so far, so that W captions
    are always growing. Its rank is its log-probability divided by its length to the power of
    `length_penalty`.

    With several groups the search is diverse (Vijayakumar et al., 2018): a group avoids the tokens
    that earlier groups choose at the same time. The penalty decides which captions a group
    continues; ranks and scores do not contain it.
    """
    steps = options.sequence_length - 1
    width, groups, length_penalty = options.beam, options.beam_groups, options.length_penalty
    pad_id, start_id, end_id = options.special_tokens[:3]
    batch, regions_count = batch_and_regions(regions)
    group_width = width // groups
    memory = generator.encode(regions)
    noise = tf.zeros([batch, width, generator.noise_size])
    state = generator.initial_state(memory, noise, steps)
    empty = Beams(
        totals=tf.fill([batch, width], -float("inf")),
        token_ids=tf.fill([batch, width, steps], pad_id),
        origins=tf.zeros([batch, width, steps], tf.int32),
    )
    # All beams of a group start equal: only the first may continue, or all would stay equal.
    first = tf.where(tf.range(width) % group_width == 0, 0.0, empty.totals)
    growing = empty._replace(totals=first)
    attention = tf.TensorArray(tf.float32, steps, element_shape=[None, width, regions_count])

    def unfinished(time, state, growing, ended, attention):
        best = tf.reduce_max(tf.reshape(growing.totals, [batch, groups, group_width]), axis=-1)
        worst = tf.reduce_min(tf.reshape(ended.totals, [batch, groups, group_width]), axis=-1)
        # The best that a growing caption can do: keep its total and reach the full length.
        hopeful = best / float(steps) ** length_penalty > worst  # [B, G]
        # Always take the first step: without it, a batch of no images has no attention to stack.
        return (time < steps) & ((time == 0) | tf.reduce_any(hopeful))

    def step(time, state, growing, ended, attention):
        before = state, growing, ended
        previous = tf.where(time > 0, growing.token_ids[:, :, time - 1], start_id)  # [B, W]
        logits, state, weights = generator.decode_step(previous, state, memory)
        if generator.has_attention:
            attention = attention.write(time, weights)
        # Constraints apply after the softmax: scores are log-probabilities of the generator, not
        # of a distribution without the forbidden tokens.
        log_probabilities = tf.nn.log_softmax(logits)  # [B, W, V]
        log_probabilities = options.constraints.apply(
            log_probabilities, growing.token_ids, time, options.special_tokens
        )
        here = tf.one_hot(time, steps, True, False, dtype=tf.bool)  # [T]
        growing = growing._replace(
            origins=tf.where(here, tf.range(width)[:, None], growing.origins)
        )
        just_ended = Beams(
            (growing.totals + log_probabilities[..., end_id])
            / tf.cast(time + 1, tf.float32) ** length_penalty,
            tf.where(here, end_id, growing.token_ids),
            growing.origins,
        )
        chosen: list[tuple[tf.Tensor, tf.Tensor, tf.Tensor]] = []
        for group in range(groups):
            beams = slice(group * group_width, (group + 1) * group_width)
            parents, tokens, totals = _choose(
                growing.totals[:, beams],
                log_probabilities[:, beams],
                [tokens for _, tokens, _ in chosen],
                options.diversity_penalty,
                end_id,
            )
            chosen.append((beams.start + parents, tokens, totals))
        parents, tokens, totals = (tf.concat(part, axis=1) for part in zip(*chosen, strict=True))
        ended = _best(ended, just_ended, groups)
        longer = _pick(growing, parents)
        token_ids = tf.where(here, tokens[..., None], longer.token_ids)
        growing = Beams(totals, token_ids, longer.origins)
        state = tf.nest.map_structure(lambda part: tf.gather(part, parents, batch_dims=1), state)
        # The loop requires unchanged static shapes, and `decode_step` forgets the batch size.
        after = tf.nest.map_structure(
            lambda new, old: tf.ensure_shape(new, old.shape), (state, growing, ended), before
        )
        return time + 1, *after, attention

    _, _, _, ended, attention = tf.while_loop(
        unfinished, step, (0, state, growing, empty, attention)
    )
    ended = _pick(ended, tf.argsort(ended.totals, direction="DESCENDING", stable=True))
    lengths = tf.reduce_sum(tf.cast(ended.token_ids != pad_id, tf.float32), axis=-1)  # [B, W]
    return Decoded(
        ended.token_ids,
        # From ranks to mean log-probabilities per token.
        ended.totals * tf.maximum(lengths, 1) ** (length_penalty - 1),
        _attention_of(ended, attention.stack(), pad_id) if generator.has_attention else None,
    )


def _choose(
    totals: tf.Tensor,
    log_probabilities: tf.Tensor,
    chosen_before: list[tf.Tensor],
    diversity_penalty: float,
    end_id: int,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Chooses the continuations of a group.

    Args:
        totals: [B, w], of its captions.
        log_probabilities: [B, w, V], of their next tokens.
        chosen_before: [B, w] each, tokens that earlier groups have chosen.
        diversity_penalty: Subtracted from the log-probability of a token for each time it is in
            `chosen_before`.
        end_id: The end token, which does not continue a caption.

    Returns:
        Three tensors [B, w]: which captions continue, with which tokens, and their new totals.
    """
    batch, width, vocabulary_size = tf.unstack(tf.shape(log_probabilities))
    penalized = log_probabilities
    if chosen_before:
        times = tf.one_hot(tf.concat(chosen_before, axis=1), vocabulary_size)
        penalized -= diversity_penalty * tf.reduce_sum(times, axis=1, keepdims=True)  # [B, w, V]
    count = tf.minimum(width + 1, vocabulary_size)  # One more, for the end token may be among them.
    values, tokens = _largest(penalized, count)  # [B, w, w + 1]
    values = tf.where(tokens == end_id, -float("inf"), totals[..., None] + values)
    _, best = tf.math.top_k(tf.reshape(values, [batch, -1]), width)  # [B, w]
    continued = totals[..., None] + tf.gather(log_probabilities, tokens, batch_dims=2)
    continued = tf.where(tokens == end_id, -float("inf"), continued)
    tokens, continued = (
        tf.gather(tf.reshape(tensor, [batch, -1]), best, batch_dims=1)
        for tensor in (tokens, continued)
    )
    return best // count, tokens, continued


def _largest(values: tf.Tensor, count: tf.Tensor | int) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns what `tf.math.top_k` returns, in a quarter of the time for thousands of values.

    The n largest values lie in the n blocks with the largest maxima.

    Args:
        values: [B, w, V].
        count: At most V.

    Returns:
        The largest values [B, w, count], in descending order, and their positions.
    """
    surplus = -values.shape[-1] % BLOCK
    padded = tf.pad(values, [[0, 0], [0, 0], [0, surplus]], constant_values=-float("inf"))
    blocks = padded.shape[-1] // BLOCK
    padded = tf.reshape(padded, [*tf.unstack(tf.shape(values)[:2]), blocks, BLOCK])
    _, best = tf.math.top_k(tf.reduce_max(padded, axis=-1), tf.minimum(count, blocks))
    best = tf.sort(best)  # [B, w, chosen blocks]; in order, as ties go to the first of equal values
    candidates = tf.gather(padded, best, batch_dims=2)
    candidates = tf.reshape(candidates, [*tf.unstack(tf.shape(best)[:2]), -1])
    largest, positions = tf.math.top_k(candidates, count)
    return largest, tf.gather(best, positions // BLOCK, batch_dims=2) * BLOCK + positions % BLOCK


def _pick(beams: Beams, chosen: tf.Tensor) -> Beams:
    return Beams(*(tf.gather(tensor, chosen, batch_dims=1) for tensor in beams))


def _best(ended: Beams, just_ended: Beams, groups: int) -> Beams:
    """Returns the best captions of both, group by group."""

    def by_group(tensor: tf.Tensor) -> tf.Tensor:  # [B, W, ...] to [B G, w, ...]
        return tf.reshape(tensor, [-1, tensor.shape[1] // groups, *tensor.shape[2:]])

    both = Beams(
        *(
            tf.concat([by_group(old), by_group(new)], axis=1)
            for old, new in zip(ended, just_ended, strict=True)
        )
    )
    best = _pick(both, tf.math.top_k(both.totals, both.totals.shape[1] // 2).indices)
    return Beams(
        *(tf.reshape(tensor, tf.shape(old)) for tensor, old in zip(best, ended, strict=True))
    )


def _attention_of(ended: Beams, attention: tf.Tensor, pad_id: int) -> tf.Tensor:
    """Collects the attention [B, W, T, R] of captions from that of the beams [T, B, W, R]."""
    steps, _, width, regions = attention.shape
    attention = tf.reshape(tf.transpose(attention, [1, 0, 2, 3]), [-1, steps * width, regions])
    sources = tf.range(steps) * width + ended.origins  # [B, W, T]
    weights = tf.gather(attention, sources, batch_dims=1)  # [B, W, T, R]
    return tf.where(ended.token_ids[..., None] == pad_id, 0.0, weights)
