"""Decoding: a generator and regions in, captions out; graph operations only.

B batch, K captions an image, T time, V vocabulary, R regions, H hidden.

Greedy decoding and sampling differ in how they choose a word, no more; beam search also reorders
its captions. All of them stop as soon as every caption has ended.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import tensorflow as tf

from caption_gan.models.decoding.constraints import NO_CONSTRAINTS, DecodingConstraints
from caption_gan.models.encoders.encoder import Regions
from caption_gan.models.trace_scopes import ROLLOUT, trace_scope
from caption_gan.text.vocabulary import END_ID, PAD_ID, START_ID

# Of one captioner, or of each member of an ensemble.
RegionsOrSeveral = Regions | tuple[Regions, ...]


class Decoder(Protocol):
    """What decoding needs of a generator, or of an ensemble of them; see `Generator`."""

    vocabulary_size: int
    noise_size: int
    state_size: int

    def encode(self, regions: Any) -> Any:
        """Encodes regions once for any number of captions and words."""

    def initial_state(self, memory: Any, noise: tf.Tensor) -> tf.Tensor:
        """First states [B, K, 2 H] from noise [B, K, Z]."""

    def decode_step(
        self, token_ids: tf.Tensor, states: tf.Tensor, memory: Any
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Logits [B, K, V], states and attention weights [B, K, R] after words [B, K]."""


class Decoded(NamedTuple):
    """Captions with what is known of them."""

    token_ids: tf.Tensor  # [B, K, T]; the end token included, then padding
    scores: tf.Tensor  # [B, K]; mean log-probability a token, the end token included
    attention: tf.Tensor  # [B, K, T, R]; where the generator looked when it wrote each token


def greedy(
    generator: Decoder,
    regions: RegionsOrSeveral,
    sequence_length: int,
    constraints: DecodingConstraints = NO_CONSTRAINTS,
) -> Decoded:
    """Writes the likeliest word at each step; K is 1 and the noise zero.

    Args:
        generator: Writes.
        regions: [B, R, D].
        sequence_length: Most tokens that are read or written, the start token included.
        constraints: For the captions.
    """
    noise = tf.zeros([batch_and_regions(regions)[0], 1, generator.noise_size])

    def likeliest(logits: tf.Tensor, _: tf.Tensor) -> tf.Tensor:
        return tf.argmax(logits, axis=-1, output_type=tf.int32)

    return _write(generator, regions, noise, likeliest, sequence_length, constraints)


def sample(
    generator: Decoder,
    regions: RegionsOrSeveral,
    sequence_length: int,
    captions: int,
    seed: tf.Tensor,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    constraints: DecodingConstraints = NO_CONSTRAINTS,
) -> Decoded:
    """Draws K captions an image.

    Args:
        generator: Writes.
        regions: [B, R, D].
        sequence_length: Most tokens that are read or written, the start token included.
        captions: K.
        seed: Two integers [2]; the same seed gives the same captions.
        temperature: Divides the logits; below 1 makes likely words likelier.
        top_k: Only the k likeliest words are drawn (Fan et al., 2018); 0 means all.
        top_p: Only the likeliest words that together reach this probability are drawn (nucleus
            sampling; Holtzman et al., 2020). Taken after `temperature` and `top_k`.
        constraints: For the captions.

    Returns:
        Captions; their scores are log-probabilities before temperature and truncation.
    """
    noise = draw_noise(generator, batch_and_regions(regions)[0], captions, seed)

    def draw(logits: tf.Tensor, time: tf.Tensor) -> tf.Tensor:
        logits = truncate(logits / temperature, top_k, top_p)
        perturbed = logits + gumbel(tf.shape(logits), seed, time)
        return tf.argmax(perturbed, axis=-1, output_type=tf.int32)

    return _write(generator, regions, noise, draw, sequence_length, constraints)


def sample_rows(
    generator: Decoder,
    regions: RegionsOrSeveral,
    sequence_length: int,
    captions: int,
    seeds: tf.Tensor,
    temperature: tf.Tensor,
    top_p: tf.Tensor,
    constraints: DecodingConstraints = NO_CONSTRAINTS,
) -> Decoded:
    """Draws K captions of each image in its own way, whatever else is in the batch.

    Args:
        generator: Writes.
        regions: [B, R, D].
        sequence_length: Most tokens that are read or written, the start token included.
        captions: K.
        seeds: Integers [B]; the same seed gives the same captions.
        temperature: [B].
        top_p: [B]; see `sample`.
        constraints: For the captions.

    Returns:
        Captions; their scores are log-probabilities before temperature and truncation.
    """

    def draw(seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        noise = tf.random.stateless_normal([captions, generator.noise_size], [seed, 0])
        # One number a word decides it, so that all of a row's are had at once.
        return noise, tf.random.stateless_uniform([sequence_length - 1, captions, 1], [seed, 1])

    drawn = (tf.TensorSpec([captions, generator.noise_size]), tf.TensorSpec([None, captions, 1]))
    noise, uniform = tf.map_fn(draw, tf.cast(seeds, tf.int64), fn_output_signature=drawn)
    warmth = temperature[:, None, None]  # [B, 1, 1]

    def choose(logits: tf.Tensor, time: tf.Tensor) -> tf.Tensor:
        logits = logits / warmth  # [B, K, V]
        logits = tf.cond(
            tf.reduce_all(top_p >= 1),
            lambda: logits,
            lambda: nucleus(logits, top_p[:, None, None]),
        )
        reached = tf.cumsum(tf.nn.softmax(logits), axis=-1)
        # Rounding may leave the sum below 1, which a number must not exceed.
        height = uniform[:, time] * reached[..., -1:]  # [B, K, 1]
        return tf.math.count_nonzero(reached <= height, axis=-1, dtype=tf.int32)

    return _write(generator, regions, noise, choose, sequence_length, constraints)


def batch_and_regions(regions: RegionsOrSeveral) -> tuple[tf.Tensor, int | None]:
    """The number of images B and, where it is static, of regions R."""
    features = (regions if isinstance(regions, Regions) else regions[0]).features
    return tf.shape(features)[0], features.shape[1]


def draw_noise(generator: Decoder, images: tf.Tensor, captions: int, seed: tf.Tensor) -> tf.Tensor:
    """The noise [B, K, Z] of samples with that seed."""
    return tf.random.stateless_normal([images, captions, generator.noise_size], seed)


def gumbel(shape: tf.Tensor, seed: tf.Tensor, time: tf.Tensor | int) -> tf.Tensor:
    """Gumbel noise; the largest of logits with it is a draw from their softmax."""
    # Seeds of the words must differ from that of the noise z, hence the 1.
    word_seed = tf.add(seed, [1, time])
    uniform = tf.random.stateless_uniform(shape, word_seed, minval=1e-20, maxval=1.0)
    return -tf.math.log(-tf.math.log(uniform))


def truncate(logits: tf.Tensor, top_k: int, top_p: float) -> tf.Tensor:
    """Sets to -inf the logits [..., V] outside of the k likeliest and of the nucleus p.

    Words as likely as the least likely one that is kept are kept too.
    """
    if top_k:
        best = tf.math.top_k(logits, min(top_k, logits.shape[-1])).values  # [..., k]
        logits = tf.where(logits < best[..., -1:], -float("inf"), logits)
    return nucleus(logits, top_p) if top_p < 1 else logits


def nucleus(logits: tf.Tensor, top_p: tf.Tensor | float) -> tf.Tensor:
    """Sets to -inf the logits [..., V] outside of the nucleus p, one for all or [..., 1]."""
    ordered = tf.sort(logits, direction="DESCENDING")  # [..., V]
    before = tf.cumsum(tf.nn.softmax(ordered), axis=-1, exclusive=True)  # 0 for the likeliest
    # The likeliest one stays whatever the nucleus is.
    kept = (before < top_p) | (before == 0)
    least = tf.reduce_min(tf.where(kept, ordered, float("inf")), -1, keepdims=True)
    return tf.where(logits < least, -float("inf"), logits)


@trace_scope(ROLLOUT)
def _write(
    generator: Decoder,
    regions: RegionsOrSeveral,
    noise: tf.Tensor,
    choose: Callable[[tf.Tensor, tf.Tensor], tf.Tensor],
    sequence_length: int,
    constraints: DecodingConstraints,
) -> Decoded:
    """Writes captions word by word; `choose` maps logits [B, K, V] and the time to [B, K]."""
    memory = generator.encode(regions)
    steps = sequence_length - 1

    def unfinished(time, states, written, finished, total, attention):
        # The first step is taken even for no images: nothing seen would have no shape to stack.
        return (time < steps) & ((time == 0) | ~tf.reduce_all(finished))

    def write_word(time, states, written, finished, total, attention):
        previous = tf.where(time > 0, written[:, :, time - 1], START_ID)  # [B, K]
        logits, states, weights = generator.decode_step(previous, states, memory)
        chosen = choose(constraints.apply(logits, written, time), time)  # [B, K]
        chosen = tf.where(time == steps - 1, END_ID, chosen)
        chosen = tf.where(finished, PAD_ID, chosen)
        # Cross-entropy, which asks for the chosen words alone, takes four times as long.
        log_probabilities = tf.gather(tf.nn.log_softmax(logits), chosen, batch_dims=2)  # [B, K]
        total += tf.where(finished, 0.0, log_probabilities)
        written = tf.where(tf.range(steps) == time, chosen[..., None], written)
        attention = attention.write(time, weights)
        finished = finished | (chosen == END_ID)
        return time + 1, states, written, finished, total, attention

    captions = tf.shape(noise)[:2]
    attention = tf.TensorArray(
        tf.float32, steps, element_shape=[None, None, batch_and_regions(regions)[1]]
    )
    *_, written, _, total, attention = tf.while_loop(
        unfinished,
        write_word,
        (
            0,
            generator.initial_state(memory, noise),  # [B, K, 2 H]
            tf.fill(tf.concat([captions, [steps]], axis=0), PAD_ID),
            tf.zeros(captions, tf.bool),
            tf.zeros(captions),
            attention,
        ),
    )
    looked = tf.transpose(attention.stack(), [1, 2, 0, 3])  # [B, K, T, R]; zero where not written
    lengths = tf.reduce_sum(tf.cast(written != PAD_ID, tf.float32), axis=-1)  # [B, K]
    return Decoded(
        # What reads them unrolled wants to know how long they are.
        token_ids=tf.ensure_shape(written, [None, None, steps]),
        scores=total / tf.maximum(lengths, 1),
        attention=looked,
    )
