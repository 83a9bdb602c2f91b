"""Captions of batches of images as text, by every decoding that the settings ask for.

B batch, K captions an image, T time, R regions.
"""

from collections.abc import Iterator, Mapping

import numpy as np
import tensorflow as tf

from caption_gan.config.models import DecodingConfig
from caption_gan.models.captioner import Captioner
from caption_gan.models.decoding import sampling
from caption_gan.models.decoding.beam_search import beam_search
from caption_gan.models.decoding.constraints import DecodingConstraints
from caption_gan.text.tokenizer import Tokenizer


class TextDecoder:
    """Writes captions by every decoding that the settings ask for, compiled once.

    Args:
        captioner: Writes.
        tokenizer: Spells.
        config: Which decodings, and how.
        seed: Of the samples.
    """

    def __init__(
        self, captioner: Captioner, tokenizer: Tokenizer, config: DecodingConfig, seed: int
    ):
        self.captioner = captioner
        self.tokenizer = tokenizer
        self.config = config
        self.seed = seed
        self.constraints = DecodingConstraints(config.minimum_length, config.no_repeat_ngram_size)

    @tf.function(reduce_retracing=True)
    def greedy(self, batch: Mapping[str, tf.Tensor]) -> sampling.Decoded:
        """One caption an image, the likeliest word at each step."""
        regions = self.captioner.regions(batch)
        return sampling.greedy(
            self.captioner.generator, regions, self.tokenizer.sequence_length, self.constraints
        )

    @tf.function(reduce_retracing=True)
    def sample(self, batch: Mapping[str, tf.Tensor], number: tf.Tensor) -> sampling.Decoded:
        """K captions an image; `number` is the batch's, so that batches draw differently."""
        config = self.config
        return sampling.sample(
            self.captioner.generator,
            self.captioner.regions(batch),
            self.tokenizer.sequence_length,
            config.samples,
            # Odd and even leave room for a second seed within.
            tf.stack([self.seed, 1000 * number]),
            config.temperature,
            config.top_k,
            config.top_p,
            self.constraints,
        )

    @tf.function(reduce_retracing=True)
    def beam(self, batch: Mapping[str, tf.Tensor]) -> sampling.Decoded:
        """The best captions of a beam, best first."""
        config = self.config
        return beam_search(
            self.captioner.generator,
            self.captioner.regions(batch),
            self.tokenizer.sequence_length,
            config.beam,
            config.length_penalty,
            config.beam_groups,
            config.diversity_penalty,
            self.constraints,
        )

    def detokenize(self, decoded: sampling.Decoded) -> list[list[tuple[str, float]]]:
        """Captions with scores for each image, from [B, K, T]."""
        captions, length = decoded.token_ids.shape[1:]
        texts = self.tokenizer.detokenize(tf.reshape(decoded.token_ids, [-1, length])).numpy()
        pairs = zip(texts, decoded.scores.numpy().flat, strict=True)
        flat = [(text.decode(), float(score)) for text, score in pairs]
        return [flat[start : start + captions] for start in range(0, len(flat), captions)]

    def describe(
        self, batch: Mapping[str, tf.Tensor], number: int
    ) -> Iterator[tuple[dict[str, list[tuple[str, float]]], list[str], np.ndarray]]:
        """Captions by decoding, and tokens and attention of the greedy one, for each image."""
        greedy = self.greedy(batch)
        spelled = {"greedy": self.detokenize(greedy)}
        spelled["sample"] = self.detokenize(self.sample(batch, tf.constant(number)))
        if self.config.beam > 1:
            spelled["beam"] = self.detokenize(self.beam(batch))
        tokens = self.tokenizer.token_strings(greedy.token_ids[:, 0]).numpy()
        attention = greedy.attention[:, 0].numpy()  # [B, T, R]
        grid = self.captioner.encoder.grid or (1, attention.shape[-1])
        for row, words in enumerate(tokens):
            kept = [word.decode() for word in words if word not in (b"", b"[PAD]", b"[END]")]
            yield (
                {name: captions[row] for name, captions in spelled.items()},
                kept,
                attention[row, : len(kept)].reshape(-1, *grid),
            )
