"""Beam search: the likeliest captions rather than the likeliest next word.

B batch, W width of the beam, T time, V vocabulary, R regions, H hidden.
"""

from typing import NamedTuple

import tensorflow as tf

from caption_gan.models.decoding import Decoded, allowed
from caption_gan.models.generator import Context, Generator
from caption_gan.text.vocabulary import END_ID, PAD_ID, START_ID


class Beams(NamedTuple):
    """Captions of one image side by side, best first."""

    totals: tf.Tensor  # [B, W]; log-probabilities, -inf where there is no caption yet
    token_ids: tf.Tensor  # [B, W, T]
    attention: tf.Tensor  # [B, W, T, R]


def beam_search(
    generator: Generator,
    regions: tf.Tensor,
    sequence_length: int,
    width: int,
    length_penalty: float = 1.0,
) -> Decoded:
    """Searches the W best captions an image, best first; the noise is zero.

    Captions that have ended leave the beam for a list of the W best so far, so that W captions
    are always growing. A caption's rank is its log-probability divided by its length to the power
    of `length_penalty` (Wu et al., 2016, without their offset).

    Args:
        generator: Writes.
        regions: [B, R, D].
        sequence_length: Most tokens that are read or written, the start token included.
        width: W.
        length_penalty: 0 favours short captions; 1 ranks by the mean a token.
    """
    steps = sequence_length - 1
    batch, region_count = tf.shape(regions)[0], regions.shape[1]
    context = _for_each(generator.look(regions), width)
    noise = tf.zeros([batch * width, 1, generator.noise_size])
    states = generator.start(context, noise)  # [B W, 1, 2 H]
    states = tf.reshape(states, [batch, width, generator.state_size])
    nothing = Beams(
        totals=tf.fill([batch, width], -float("inf")),
        token_ids=tf.fill([batch, width, steps], PAD_ID),
        attention=tf.zeros([batch, width, steps, region_count]),
    )
    # All beams start alike: only the first may be continued, or all would stay alike.
    first = tf.concat([tf.zeros([batch, 1]), nothing.totals[:, 1:]], axis=1)
    growing = nothing._replace(totals=first)

    def unfinished(time, states, growing, ended):
        # A growing caption's rank can at best keep its total and reach the full length.
        best = growing.totals[:, 0] / float(steps) ** length_penalty  # [B]
        return (time < steps) & tf.reduce_any(best > ended.totals[:, -1])

    def write_word(time, *before):
        states, growing, ended = before
        previous = tf.where(time > 0, growing.token_ids[:, :, time - 1], START_ID)  # [B, W]
        logits, states, weights = generator.step(
            tf.reshape(previous, [-1, 1]),
            tf.reshape(states, [-1, 1, generator.state_size]),
            context,
        )
        logits = tf.reshape(logits, [batch, width, generator.vocabulary_size])
        # What may not be written keeps its probability: scores are of the caption, not of a
        # distribution without those words.
        log_probabilities = tf.where(
            tf.math.is_inf(allowed(logits)), -float("inf"), tf.nn.log_softmax(logits)
        )
        totals = growing.totals[..., None] + log_probabilities  # [B, W, V]
        here = tf.one_hot(time, steps, True, False, dtype=tf.bool)  # [T]
        attention = tf.where(
            here[:, None], tf.reshape(weights, [batch, width, 1, -1]), growing.attention
        )

        ranks = totals[..., END_ID] / tf.cast(time + 1, tf.float32) ** length_penalty
        just_ended = Beams(ranks, tf.where(here, END_ID, growing.token_ids), attention)
        ended = _best(_join(ended, just_ended), width)

        is_end = tf.one_hot(END_ID, generator.vocabulary_size, True, False, dtype=tf.bool)
        flat = tf.reshape(tf.where(is_end, -float("inf"), totals), [batch, -1])  # [B, W V]
        totals, chosen = tf.math.top_k(flat, width)  # [B, W]
        parents, words = chosen // generator.vocabulary_size, chosen % generator.vocabulary_size
        token_ids = tf.gather(growing.token_ids, parents, batch_dims=1)
        growing = Beams(
            totals,
            tf.where(here, words[..., None], token_ids),
            tf.gather(attention, parents, batch_dims=1),
        )
        states = tf.reshape(states, [batch, width, generator.state_size])
        after = (tf.gather(states, parents, batch_dims=1), growing, ended)
        # Inside the loop the batch's size is no longer known, which the loop would not accept.
        return time + 1, *tf.nest.map_structure(
            lambda new, old: tf.ensure_shape(new, old.shape), after, before
        )

    _, _, growing, ended = tf.while_loop(
        unfinished, write_word, (0, states, growing, nothing), maximum_iterations=steps
    )
    return Decoded(ended.token_ids, _mean_a_token(ended, length_penalty), ended.attention)


def _for_each(context: Context, width: int) -> Context:
    """Repeats what is known of each image for each of its beams: [B, ...] to [B W, ...]."""
    return tf.nest.map_structure(lambda tensor: tf.repeat(tensor, width, axis=0), context)


def _join(left: Beams, right: Beams) -> Beams:
    return Beams(*(tf.concat(pair, axis=1) for pair in zip(left, right, strict=True)))


def _best(beams: Beams, width: int) -> Beams:
    totals, chosen = tf.math.top_k(beams.totals, width)
    return Beams(
        totals,
        tf.gather(beams.token_ids, chosen, batch_dims=1),
        tf.gather(beams.attention, chosen, batch_dims=1),
    )


def _mean_a_token(ended: Beams, length_penalty: float) -> tf.Tensor:
    """From ranks to mean log-probabilities a token [B, W]."""
    lengths = tf.reduce_sum(tf.cast(ended.token_ids != PAD_ID, tf.float32), axis=-1)
    return ended.totals * tf.maximum(lengths, 1) ** (length_penalty - 1)
