"""What all decodings share: their options, their result, and what they need of a generator.

B batch, K captions per image, T time, V vocabulary, R regions, D region depth, Z noise.
"""

from typing import Any, NamedTuple, Protocol

import tensorflow as tf

from caption_gan.config.models import DecodingConfig
from caption_gan.models.decoding.constraints import NO_CONSTRAINTS, DecodingConstraints
from caption_gan.models.encoders.encoder import Regions
from caption_gan.models.generators.generator import Memory, State
from caption_gan.text.tokenizer import Tokenizer
from caption_gan.text.vocabulary import SPECIAL_IDS, SpecialTokens

# Of one captioner, or of each member of an ensemble.
RegionsOrSeveral = Regions | tuple[Regions, ...]


class DecodingOptions(NamedTuple):
    """How captions are decoded. Each decoding reads the options that concern it.

    Attributes:
        sequence_length: Maximum number of tokens of a caption, start and end token included.
        samples: Sampled captions per image, K.
        temperature: Sampling divides the logits by it; below 1 makes likely tokens likelier.
            `sample_rows` takes a tensor [B], `sample` also one such as [1, K, 1].
        top_k: Sampling draws from the k likeliest tokens only (Fan et al., 2018); 0 means all.
        top_p: Sampling draws from the smallest set of likeliest tokens that together reach this
            probability (nucleus sampling; Holtzman et al., 2020), after `temperature` and `top_k`.
            Tensors are as those of `temperature`.
        beam: Width of the beam search.
        length_penalty: The beam search divides log-probabilities by the length to this power
            (Wu et al., 2016, without their offset): 0 favours short captions, 1 ranks by the mean
            per token.
        beam_groups: Groups of the beam; must divide `beam`. 1 is the plain search.
        diversity_penalty: Log-probability that a token loses for each beam of a group before that
            has just chosen it (Vijayakumar et al., 2018).
        constraints: Which captions are allowed.
        special_tokens: Ids of the tokenizer's special tokens.
    """

    sequence_length: int
    samples: int = 1
    temperature: float | tf.Tensor = 1.0
    top_k: int = 0
    top_p: float | tf.Tensor = 1.0
    beam: int = 1
    length_penalty: float = 1.0
    beam_groups: int = 1
    diversity_penalty: float = 0.0
    constraints: DecodingConstraints = NO_CONSTRAINTS
    special_tokens: SpecialTokens = SPECIAL_IDS

    @classmethod
    def from_config(cls, config: DecodingConfig, tokenizer: Tokenizer) -> "DecodingOptions":
        """Options of a run's settings and tokenizer."""
        return cls(
            sequence_length=tokenizer.sequence_length,
            samples=config.samples,
            temperature=config.temperature,
            top_k=config.top_k,
            top_p=config.top_p,
            beam=config.beam,
            length_penalty=config.length_penalty,
            beam_groups=config.beam_groups,
            diversity_penalty=config.diversity_penalty,
            constraints=DecodingConstraints(config.minimum_length, config.no_repeat_ngram_size),
            special_tokens=tokenizer.special_tokens,
        )


class Decoded(NamedTuple):
    """Decoded captions.

    Attributes:
        token_ids: [B, K, T] without the start token; the end token, then padding.
        scores: [B, K]; mean log-probability per token, the end token included.
        attention: [B, K, T, R]; attention weights with which each token was predicted. None if the
            generator has no attention.
    """

    token_ids: tf.Tensor
    scores: tf.Tensor
    attention: tf.Tensor | None


class Decoder(Protocol):
    """What decoding needs of a generator or an ensemble; see `Generator`."""

    vocabulary_size: int
    noise_size: int
    has_attention: bool

    def encode(self, regions: Any) -> Memory:
        """Encodes the images' regions once for any number of captions and tokens."""

    def initial_state(self, memory: Memory, noise: tf.Tensor, length: int) -> State:
        """State before the first token, from noise [B, K, Z], to read at most `length` tokens."""

    def decode_step(
        self, token_ids: tf.Tensor, state: State, memory: Memory
    ) -> tuple[tf.Tensor, State, tf.Tensor | None]:
        """Logits [B, K, V], state and attention weights [B, K, R] or None after tokens [B, K]."""


def batch_and_regions(regions: RegionsOrSeveral) -> tuple[tf.Tensor, int | None]:
    """The number of images B and, if it is static, of regions R."""
    features = (regions if isinstance(regions, Regions) else regions[0]).features
    return tf.shape(features)[0], features.shape[1]
