"""Greedy decoding and sampling, in the graph.

B batch, K captions per image, T time, V vocabulary, R regions, Z noise.

Both choose one token at a time and differ in how they choose it. Decoding stops as soon as every
caption has ended.
"""

from collections.abc import Callable

import tensorflow as tf

from caption_gan.models.decoding.decoder import (
    Decoded,
    Decoder,
    DecodingOptions,
    RegionsOrSeveral,
    batch_and_regions,
)
from caption_gan.models.trace_scopes import ROLLOUT, trace_scope


def greedy(generator: Decoder, regions: RegionsOrSeveral, options: DecodingOptions) -> Decoded:
    """Decodes one caption per image from the likeliest token at each step; the noise is zero."""
    noise = tf.zeros([batch_and_regions(regions)[0], 1, generator.noise_size])

    def likeliest(logits: tf.Tensor, _: tf.Tensor) -> tf.Tensor:
        return tf.argmax(logits, axis=-1, output_type=tf.int32)

    return _decode(generator, regions, noise, likeliest, options)


def sample(
    generator: Decoder, regions: RegionsOrSeveral, options: DecodingOptions, seed: tf.Tensor
) -> Decoded:
    """Draws K captions per image.

    Args:
        generator: Predicts the tokens.
        regions: Of B images.
        options: Number of samples, temperature, truncation, constraints. `temperature` and
            `top_p` may be tensors that broadcast against [B, K, 1].
        seed: Two integers [2]; the same seed gives the same captions.

    Returns:
        Captions; their scores are log-probabilities before temperature and truncation.
    """
    noise = draw_noise(generator, batch_and_regions(regions)[0], options.samples, seed)

    def draw(logits: tf.Tensor, time: tf.Tensor) -> tf.Tensor:
        logits = truncate(logits / options.temperature, options.top_k, options.top_p)
        perturbed = logits + gumbel(tf.shape(logits), seed, time)
        return tf.argmax(perturbed, axis=-1, output_type=tf.int32)

    return _decode(generator, regions, noise, draw, options)


def sample_rows(
    generator: Decoder, regions: RegionsOrSeveral, options: DecodingOptions, seeds: tf.Tensor
) -> Decoded:
    """Draws K captions per image with a seed, a temperature and a nucleus of its own.

    The captions of an image do not depend on the rest of the batch.

    Args:
        generator: Predicts the tokens.
        regions: Of B images.
        options: `temperature` and `top_p` are tensors [B]; `top_k` is not read.
        seeds: Integers [B]; the same seed gives the same captions.

    Returns:
        Captions; their scores are log-probabilities before temperature and truncation.
    """
    captions = options.samples

    def draw(seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        noise = tf.random.stateless_normal([captions, generator.noise_size], [seed, 0])
        # One number per token decides it, so that all of a row's are drawn at once.
        shape = [options.sequence_length - 1, captions, 1]
        return noise, tf.random.stateless_uniform(shape, [seed, 1])

    drawn = (tf.TensorSpec([captions, generator.noise_size]), tf.TensorSpec([None, captions, 1]))
    noise, uniform = tf.map_fn(draw, tf.cast(seeds, tf.int64), fn_output_signature=drawn)
    temperature = tf.reshape(options.temperature, [-1, 1, 1])  # [B, 1, 1]
    top_p = tf.reshape(options.top_p, [-1, 1, 1])

    def choose(logits: tf.Tensor, time: tf.Tensor) -> tf.Tensor:
        logits = logits / temperature  # [B, K, V]
        logits = tf.cond(
            tf.reduce_all(top_p >= 1),
            lambda: logits,
            lambda: nucleus(logits, top_p),
        )
        cumulative = tf.cumsum(tf.nn.softmax(logits), axis=-1)
        # Rounding may leave the sum below 1, which the threshold must not exceed.
        threshold = uniform[:, time] * cumulative[..., -1:]  # [B, K, 1]
        return tf.math.count_nonzero(cumulative <= threshold, axis=-1, dtype=tf.int32)

    return _decode(generator, regions, noise, choose, options)


def draw_noise(generator: Decoder, images: tf.Tensor, captions: int, seed: tf.Tensor) -> tf.Tensor:
    """Draws the noise [B, K, Z] that `sample` uses with this seed."""
    return tf.random.stateless_normal([images, captions, generator.noise_size], seed)


def gumbel(shape: tf.Tensor, seed: tf.Tensor, time: tf.Tensor | int) -> tf.Tensor:
    """Draws Gumbel noise; the argmax of logits plus this noise is a draw from their softmax."""
    # The seeds of the tokens must differ from that of the noise z, hence the 1.
    token_seed = tf.add(seed, [1, time])
    uniform = tf.random.stateless_uniform(shape, token_seed, minval=1e-20, maxval=1.0)
    return -tf.math.log(-tf.math.log(uniform))


def truncate(logits: tf.Tensor, top_k: int, top_p: float | tf.Tensor) -> tf.Tensor:
    """Sets to -inf the logits [..., V] outside of the k likeliest and of the nucleus p.

    Tokens as likely as the least likely one that remains also remain.
    """
    if top_k:
        best = tf.math.top_k(logits, min(top_k, logits.shape[-1])).values  # [..., k]
        logits = tf.where(logits < best[..., -1:], -float("inf"), logits)
    return nucleus(logits, top_p) if isinstance(top_p, tf.Tensor) or top_p < 1 else logits


def nucleus(logits: tf.Tensor, top_p: tf.Tensor | float) -> tf.Tensor:
    """Sets to -inf the logits [..., V] outside of the nucleus; p is a number or [..., 1]."""
    ordered = tf.sort(logits, direction="DESCENDING")  # [..., V]
    before = tf.cumsum(tf.nn.softmax(ordered), axis=-1, exclusive=True)  # 0 for the likeliest
    # The likeliest token remains for any p.
    inside = (before < top_p) | (before == 0)
    least = tf.reduce_min(tf.where(inside, ordered, float("inf")), -1, keepdims=True)
    return tf.where(logits < least, -float("inf"), logits)


@trace_scope(ROLLOUT)
def _decode(
    generator: Decoder,
    regions: RegionsOrSeveral,
    noise: tf.Tensor,
    choose: Callable[[tf.Tensor, tf.Tensor], tf.Tensor],
    options: DecodingOptions,
) -> Decoded:
    """Decodes token by token; `choose` maps logits [B, K, V] and the time to tokens [B, K]."""
    memory = generator.encode(regions)
    steps = options.sequence_length - 1
    pad_id, start_id, end_id = options.special_tokens[:3]

    def unfinished(time, state, token_ids, finished, total, attention):
        # Always take the first step: without it, a batch of no images has no attention to stack.
        return (time < steps) & ((time == 0) | ~tf.reduce_all(finished))

    def step(time, state, token_ids, finished, total, attention):
        previous = tf.where(time > 0, token_ids[:, :, time - 1], start_id)  # [B, K]
        logits, state, weights = generator.decode_step(previous, state, memory)
        allowed = options.constraints.apply(logits, token_ids, time, options.special_tokens)
        chosen = choose(allowed, time)  # [B, K]
        chosen = tf.where(time == steps - 1, end_id, chosen)
        chosen = tf.where(finished, pad_id, chosen)
        # Four times as fast as the sparse cross-entropy of the chosen tokens.
        log_probabilities = tf.gather(tf.nn.log_softmax(logits), chosen, batch_dims=2)  # [B, K]
        total += tf.where(finished, 0.0, log_probabilities)
        token_ids = tf.where(tf.range(steps) == time, chosen[..., None], token_ids)
        if generator.has_attention:
            attention = attention.write(time, weights)
        finished = finished | (chosen == end_id)
        return time + 1, state, token_ids, finished, total, attention

    captions = tf.shape(noise)[:2]
    regions_count = batch_and_regions(regions)[1]
    attention = tf.TensorArray(tf.float32, steps, element_shape=[None, None, regions_count])
    *_, token_ids, _, total, attention = tf.while_loop(
        unfinished,
        step,
        (
            0,
            generator.initial_state(memory, noise, steps),
            tf.fill(tf.concat([captions, [steps]], axis=0), pad_id),
            tf.zeros(captions, tf.bool),
            tf.zeros(captions),
            attention,
        ),
    )
    weights = None
    if generator.has_attention:
        weights = tf.transpose(attention.stack(), [1, 2, 0, 3])  # [B, K, T, R]; zero after the end
    lengths = tf.reduce_sum(tf.cast(token_ids != pad_id, tf.float32), axis=-1)  # [B, K]
    return Decoded(
        # Unrolled recurrences that read the captions need a static length.
        token_ids=tf.ensure_shape(token_ids, [None, None, steps]),
        scores=total / tf.maximum(lengths, 1),
        attention=weights,
    )
