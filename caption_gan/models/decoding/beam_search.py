"""Beam search: the likeliest captions rather than the likeliest next word.

B batch, W width of all beams, G groups of beams, w width of a group (W / G), T time,
V vocabulary, R regions, H hidden.
"""

from typing import NamedTuple

import tensorflow as tf

from caption_gan.models.decoding.constraints import NO_CONSTRAINTS, DecodingConstraints
from caption_gan.models.decoding.sampling import (
    Decoded,
    Decoder,
    RegionsOrSeveral,
    batch_and_regions,
)
from caption_gan.models.trace_scopes import ROLLOUT, trace_scope
from caption_gan.text.vocabulary import END_ID, PAD_ID, START_ID

# Numbers of which the maximum is taken first where the largest of thousands are sought.
BLOCK = 100


class Beams(NamedTuple):
    """Captions of one image side by side, best first."""

    totals: tf.Tensor  # [B, W]; log-probabilities or ranks, -inf where there is no caption yet
    token_ids: tf.Tensor  # [B, W, T]
    # Which beam each word was written in: words change beams, and what was looked at for each of
    # them is found again by it.
    origins: tf.Tensor  # [B, W, T]


@trace_scope(ROLLOUT)
def beam_search(
    generator: Decoder,
    regions: RegionsOrSeveral,
    sequence_length: int,
    width: int,
    length_penalty: float = 1.0,
    groups: int = 1,
    diversity: float = 0.0,
    constraints: DecodingConstraints = NO_CONSTRAINTS,
) -> Decoded:
    """Searches the W best captions an image, best first; the noise is zero.

    Captions that have ended leave the beam for a list of the W best so far, so that W captions
    are always growing. A caption's rank is its log-probability divided by its length to the power
    of `length_penalty` (Wu et al., 2016, without their offset).

    In several groups the search is diverse (Vijayakumar et al., 2018): a group avoids the words
    that the groups before it choose at the same time. The penalty decides which words a group
    goes on with; ranks and scores are the captions' own.

    Args:
        generator: Writes.
        regions: [B, R, D].
        sequence_length: Most tokens that are read or written, the start token included.
        width: W.
        length_penalty: 0 favours short captions; 1 ranks by the mean a token.
        groups: G; must divide the width. 1 is the plain search.
        diversity: Log-probability that a word loses for each beam of a group before that has
            just chosen it.
        constraints: For the captions.
    """
    steps = sequence_length - 1
    batch, regions_count = batch_and_regions(regions)
    each = width // groups
    memory = generator.encode(regions)
    states = generator.initial_state(
        memory, tf.zeros([batch, width, generator.noise_size])
    )  # [B, W, 2 H]
    nothing = Beams(
        totals=tf.fill([batch, width], -float("inf")),
        token_ids=tf.fill([batch, width, steps], PAD_ID),
        origins=tf.zeros([batch, width, steps], tf.int32),
    )
    # A group's beams start alike: only the first may be continued, or all would stay alike.
    first = tf.where(tf.range(width) % each == 0, 0.0, nothing.totals)
    growing = nothing._replace(totals=first)
    attention = tf.TensorArray(tf.float32, steps, element_shape=[None, width, regions_count])

    def unfinished(time, states, growing, ended, attention):
        best = tf.reduce_max(tf.reshape(growing.totals, [batch, groups, each]), axis=-1)
        worst = tf.reduce_min(tf.reshape(ended.totals, [batch, groups, each]), axis=-1)  # [B, G]
        # A growing caption's rank can at best keep its total and reach the full length.
        hopeful = best / float(steps) ** length_penalty > worst
        # The first step is taken even for no images: no attention would have no shape to stack.
        return (time < steps) & ((time == 0) | tf.reduce_any(hopeful))

    def write_word(time, states, growing, ended, attention):
        before = states, growing, ended
        previous = tf.where(time > 0, growing.token_ids[:, :, time - 1], START_ID)  # [B, W]
        logits, states, weights = generator.decode_step(previous, states, memory)
        attention = attention.write(time, weights)
        # What may not be written keeps its probability: scores are of the caption, not of a
        # distribution without those words.
        log_probabilities = tf.nn.log_softmax(logits)  # [B, W, V]
        log_probabilities = constraints.apply(log_probabilities, growing.token_ids, time)
        here = tf.one_hot(time, steps, True, False, dtype=tf.bool)  # [T]
        growing = growing._replace(
            origins=tf.where(here, tf.range(width)[:, None], growing.origins)
        )
        just_ended = Beams(
            (growing.totals + log_probabilities[..., END_ID])
            / tf.cast(time + 1, tf.float32) ** length_penalty,
            tf.where(here, END_ID, growing.token_ids),
            growing.origins,
        )
        chosen: list[tuple[tf.Tensor, tf.Tensor, tf.Tensor]] = []
        for group in range(groups):
            own = slice(group * each, (group + 1) * each)
            parents, words, totals = _choose(
                growing.totals[:, own],
                log_probabilities[:, own],
                [words for _, words, _ in chosen],
                diversity,
            )
            chosen.append((own.start + parents, words, totals))
        parents, words, totals = (tf.concat(part, axis=1) for part in zip(*chosen, strict=True))
        ended = _best(ended, just_ended, groups)
        longer = _pick(growing, parents)
        words = tf.where(here, words[..., None], longer.token_ids)
        growing = Beams(totals, words, longer.origins)
        after = (tf.gather(states, parents, batch_dims=1), growing, ended)
        # Inside the loop the batch's size is no longer known, which the loop would not accept.
        after = tf.nest.map_structure(
            lambda new, old: tf.ensure_shape(new, old.shape), after, before
        )
        return time + 1, *after, attention

    _, _, _, ended, attention = tf.while_loop(
        unfinished, write_word, (0, states, growing, nothing, attention)
    )
    ended = _pick(ended, tf.argsort(ended.totals, direction="DESCENDING", stable=True))
    return Decoded(
        ended.token_ids, _mean_a_token(ended, length_penalty), _looked(attention.stack(), ended)
    )


def _choose(
    totals: tf.Tensor,
    log_probabilities: tf.Tensor,
    chosen_before: list[tf.Tensor],
    diversity: float,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """How a group goes on.

    Args:
        totals: [B, w], of its captions.
        log_probabilities: [B, w, V], of their next words.
        chosen_before: [B, w] each, words of the groups before.
        diversity: What each of these takes from its word.

    Returns:
        Three tensors [B, w]: which captions go on, with which words, and their totals then.
    """
    batch, width, vocabulary_size = tf.unstack(tf.shape(log_probabilities))
    attractive = log_probabilities
    if chosen_before:
        times = tf.one_hot(tf.concat(chosen_before, axis=1), vocabulary_size)
        attractive -= diversity * tf.reduce_sum(times, axis=1, keepdims=True)  # [B, w, V]
    # One more than is needed, for the end is no way to go on.
    count = tf.minimum(width + 1, vocabulary_size)
    values, words = _largest(attractive, count)  # [B, w, w + 1]
    values = tf.where(words == END_ID, -float("inf"), totals[..., None] + values)
    _, best = tf.math.top_k(tf.reshape(values, [batch, -1]), width)  # [B, w]
    continued = totals[..., None] + tf.gather(log_probabilities, words, batch_dims=2)
    continued = tf.where(words == END_ID, -float("inf"), continued)
    words, continued = (
        tf.gather(tf.reshape(tensor, [batch, -1]), best, batch_dims=1)
        for tensor in (words, continued)
    )
    return best // count, words, continued


def _largest(values: tf.Tensor, count: tf.Tensor | int) -> tuple[tf.Tensor, tf.Tensor]:
    """What `tf.math.top_k` gives, in a quarter of the time where there are thousands of numbers.

    The largest numbers are in the blocks with the largest maxima, as many as numbers are asked for.

    Args:
        values: [B, w, V].
        count: At most V.

    Returns:
        The largest numbers [B, w, count], in descending order, and where they are.
    """
    surplus = -values.shape[-1] % BLOCK
    padded = tf.pad(values, [[0, 0], [0, 0], [0, surplus]], constant_values=-float("inf"))
    blocks = padded.shape[-1] // BLOCK
    padded = tf.reshape(padded, [*tf.unstack(tf.shape(values)[:2]), blocks, BLOCK])
    _, best = tf.math.top_k(tf.reduce_max(padded, axis=-1), tf.minimum(count, blocks))
    # In their order, since of equal numbers the first is taken.
    best = tf.sort(best)  # [B, w, blocks that are kept]
    kept = tf.gather(padded, best, batch_dims=2)
    kept = tf.reshape(kept, [*tf.unstack(tf.shape(best)[:2]), -1])
    largest, places = tf.math.top_k(kept, count)
    return largest, tf.gather(best, places // BLOCK, batch_dims=2) * BLOCK + places % BLOCK


def _pick(beams: Beams, chosen: tf.Tensor) -> Beams:
    return Beams(*(tf.gather(tensor, chosen, batch_dims=1) for tensor in beams))


def _best(ended: Beams, just_ended: Beams, groups: int) -> Beams:
    """The best of both, group by group."""

    def of_groups(tensor: tf.Tensor) -> tf.Tensor:  # [B, W, ...] to [B G, w, ...]
        return tf.reshape(tensor, [-1, tensor.shape[1] // groups, *tensor.shape[2:]])

    both = Beams(
        *(
            tf.concat([of_groups(old), of_groups(new)], axis=1)
            for old, new in zip(ended, just_ended, strict=True)
        )
    )
    best = _pick(both, tf.math.top_k(both.totals, both.totals.shape[1] // 2).indices)
    return Beams(
        *(tf.reshape(tensor, tf.shape(old)) for tensor, old in zip(best, ended, strict=True))
    )


def _looked(attention: tf.Tensor, ended: Beams) -> tf.Tensor:
    """Attention [B, W, T, R] of captions, from that of the beams [T, B, W, R]."""
    steps, _, width, regions = attention.shape
    attention = tf.reshape(tf.transpose(attention, [1, 0, 2, 3]), [-1, steps * width, regions])
    written = tf.range(steps) * width + ended.origins  # [B, W, T]
    looked = tf.gather(attention, written, batch_dims=1)
    return tf.where(ended.token_ids[..., None] == PAD_ID, 0.0, looked)


def _mean_a_token(ended: Beams, length_penalty: float) -> tf.Tensor:
    """From ranks to mean log-probabilities a token [B, W]."""
    lengths = tf.reduce_sum(tf.cast(ended.token_ids != PAD_ID, tf.float32), axis=-1)
    return ended.totals * tf.maximum(lengths, 1) ** (length_penalty - 1)
