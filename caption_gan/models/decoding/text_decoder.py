"""Caption strings for batches of images, by every decoding that the settings name.

B batch, K captions per image, T time, R regions.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from caption_gan.config.models import DecodingConfig
from caption_gan.models.captioner import Captioner
from caption_gan.models.decoding import sampling
from caption_gan.models.decoding.beam_search import beam_search
from caption_gan.models.decoding.decoder import Decoded, DecodingOptions
from caption_gan.text.tokenizer import Tokenizer
from caption_gan.text.vocabulary import END_ID, PAD_ID, SPECIAL_TOKENS


class Description(NamedTuple):
    """Captions of one image.

    Attributes:
        captions: For each decoding, captions with their scores, in nats per token.
        tokens: Of the greedy caption, without the end token.
        attention: Attention weights of these tokens, [T, rows, columns]; None if the generator has
            no attention.
    """

    captions: dict[str, list[tuple[str, float]]]
    tokens: list[str]
    attention: np.ndarray | None


class TextDecoder:
    """Decodes batches of images to strings; each decoding is compiled once.

    Args:
        captioner: The captioner.
        tokenizer: The captioner's.
        config: Which decodings, and how.
        seed: Of the samples.
    """

    def __init__(
        self, captioner: Captioner, tokenizer: Tokenizer, config: DecodingConfig, seed: int
    ):
        self.captioner = captioner
        self.tokenizer = tokenizer
        self.options = DecodingOptions.from_config(config, tokenizer)
        self.seed = seed

    @tf.function(reduce_retracing=True)
    def greedy(self, batch: Mapping[str, tf.Tensor]) -> Decoded:
        """Decodes one caption per image greedily."""
        regions = self.captioner.regions(batch)
        return sampling.greedy(self.captioner.generator, regions, self.options)

    @tf.function(reduce_retracing=True)
    def sample(self, batch: Mapping[str, tf.Tensor], number: tf.Tensor) -> Decoded:
        """Samples K captions per image; `number` is the batch's and enters the seed."""
        regions = self.captioner.regions(batch)
        # Sampling adds the time to the second seed: steps of 1000 keep batches apart.
        seed = tf.stack([self.seed, 1000 * number])
        return sampling.sample(self.captioner.generator, regions, self.options, seed)

    @tf.function(reduce_retracing=True)
    def beam(self, batch: Mapping[str, tf.Tensor]) -> Decoded:
        """Searches the best captions of a beam, best first."""
        regions = self.captioner.regions(batch)
        return beam_search(self.captioner.generator, regions, self.options)

    def detokenize(self, decoded: Decoded) -> list[list[tuple[str, float]]]:
        """Returns captions with scores for each image, from [B, K, T]."""
        captions, length = decoded.token_ids.shape[1:]
        texts = self.tokenizer.detokenize(tf.reshape(decoded.token_ids, [-1, length])).numpy()
        pairs = zip(texts, decoded.scores.numpy().flat, strict=True)
        flat = [(text.decode(), float(score)) for text, score in pairs]
        return [flat[start : start + captions] for start in range(0, len(flat), captions)]

    def describe(self, batch: Mapping[str, tf.Tensor], number: int) -> Iterator[Description]:
        """Decodes each image of a batch by every decoding; see `sample` for `number`."""
        greedy = self.greedy(batch)
        captions = {"greedy": self.detokenize(greedy)}
        captions["sample"] = self.detokenize(self.sample(batch, tf.constant(number)))
        if self.options.beam > 1:
            captions["beam"] = self.detokenize(self.beam(batch))
        special = {b"", *(SPECIAL_TOKENS[token_id].encode() for token_id in (PAD_ID, END_ID))}
        rows = self.tokenizer.token_strings(greedy.token_ids[:, 0]).numpy()
        weights = None if greedy.attention is None else greedy.attention[:, 0].numpy()  # [B, T, R]
        grid = self.captioner.encoder.grid
        for index, row in enumerate(rows):
            tokens = [token.decode() for token in row if token not in special]
            attention = None
            if weights is not None:
                attention = weights[index, : len(tokens)].reshape(
                    -1, *(grid or (1, weights.shape[-1]))
                )
            of_image = {name: per_image[index] for name, per_image in captions.items()}
            yield Description(of_image, tokens, attention)
