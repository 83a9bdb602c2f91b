"""A captioner that takes image bytes and gives captions, all in the graph.

B batch, K captions an image, T time, R regions.
"""

from collections.abc import Callable

import keras
import tensorflow as tf

from caption_gan import signature
from caption_gan.config.run import Config
from caption_gan.data.image_batches import read_images
from caption_gan.exporting.small_weights import SmallWeights
from caption_gan.models.captioner import Captioner
from caption_gan.models.decoding.beam_search import beam_search
from caption_gan.models.decoding.constraints import DecodingConstraints
from caption_gan.models.decoding.ensemble import CaptionerEnsemble
from caption_gan.models.decoding.sampling import (
    Decoded,
    RegionsOrSeveral,
    greedy,
    sample_rows,
)
from caption_gan.text.tokenizer import Tokenizer

LEAST_BEAM = 5  # What a run does not score it may still serve.

Outputs = dict[str, tf.Tensor]


class ServedCaptioner:
    """The served signatures of a captioner.

    A row whose bytes are no image has an `error`, an empty caption and the score 0.

    Args:
        captioner: Trained.
        tokenizer: Its own.
        config: Of its run: size of the images, number of samples, width of the beam.

    Attributes:
        small: The weights to export in place of the captioner's own, if any.
    """

    def __init__(
        self, captioner: Captioner | CaptionerEnsemble, tokenizer: Tokenizer, config: Config
    ):
        self.captioner = captioner
        self.tokenizer = tokenizer
        self.config = config
        self.small: SmallWeights | None = None
        self.constraints = DecodingConstraints(
            config.decoding.minimum_length, config.decoding.no_repeat_ngram_size
        )

    def default(self, image_bytes: tf.Tensor) -> Outputs:
        """The likeliest words, one after another."""
        regions, error = self._look(image_bytes)
        captions, scores = self._spell(self._greedy(regions), error)
        return {
            signature.CAPTION: captions[:, 0],
            signature.SCORE: scores[:, 0],
            signature.ERROR: error,
        }

    def sample(
        self, image_bytes: tf.Tensor, temperature: tf.Tensor, top_p: tf.Tensor, seed: tf.Tensor
    ) -> Outputs:
        """K captions that are drawn; a row's depend on nothing but the row."""
        regions, error = self._look(image_bytes)
        drawn = sample_rows(
            self.captioner.generator,
            regions,
            self.tokenizer.sequence_length,
            self.config.decoding.samples,
            seed,
            temperature,
            top_p,
            self.constraints,
        )
        return self._several(drawn, error)

    def beam(self, image_bytes: tf.Tensor) -> Outputs:
        """The K best captions of a beam search, best first."""
        regions, error = self._look(image_bytes)
        settings = self.config.decoding
        found = beam_search(
            self.captioner.generator,
            regions,
            self.tokenizer.sequence_length,
            # A run with groups has beams enough for them.
            settings.beam if settings.beam_groups > 1 else max(settings.beam, LEAST_BEAM),
            settings.length_penalty,
            settings.beam_groups,
            settings.diversity_penalty,
            self.constraints,
        )
        return self._several(found, error)

    def attention(self, image_bytes: tf.Tensor) -> Outputs:
        """The default caption, its tokens, and where the generator looked when it wrote them."""
        regions, error = self._look(image_bytes)
        decoded = self._greedy(regions)
        captions, _ = self._spell(decoded, error)
        tokens = self.tokenizer.token_strings(decoded.token_ids[:, 0])  # [B, T]
        special = tf.reduce_any(tokens[..., None] == ["[PAD]", "[END]"], axis=-1)
        hidden = special | (error != "")[:, None]
        return {
            signature.CAPTION: captions[:, 0],
            signature.TOKENS: tf.where(hidden, "", tokens),
            signature.WEIGHTS: tf.where(hidden[..., None], 0.0, decoded.attention[:, 0]),
            signature.ERROR: error,
        }

    def examples(self, examples: tf.Tensor) -> Outputs:
        """As the default, of serialized `tf.train.Example`s."""
        features = {signature.ENCODED: tf.io.FixedLenFeature([], tf.string, default_value="")}
        parsed = tf.io.parse_example(examples, features)
        return self.default(parsed[signature.ENCODED])

    def endpoints(self) -> dict[str, tuple[Callable[..., Outputs], list[tf.TensorSpec]]]:
        """A function for each signature, and its inputs."""

        def of_rows(name: str, dtype: tf.DType = tf.string) -> tf.TensorSpec:
            return tf.TensorSpec([None], dtype, name)

        image_bytes = of_rows(signature.IMAGE_BYTES)
        return {
            signature.DEFAULT: (self.default, [image_bytes]),
            signature.SAMPLE: (
                self.sample,
                [
                    image_bytes,
                    of_rows(signature.TEMPERATURE, tf.float32),
                    of_rows(signature.TOP_P, tf.float32),
                    of_rows(signature.SEED, tf.int64),
                ],
            ),
            signature.BEAM: (self.beam, [image_bytes]),
            signature.ATTENTION: (self.attention, [image_bytes]),
            signature.EXAMPLES: (self.examples, [of_rows(signature.SERIALIZED)]),
        }

    def archive(self) -> keras.export.ExportArchive:
        """All signatures with all that they need."""
        archive = keras.export.ExportArchive()
        for stored in self.small.weights() if self.small else [self.captioner]:
            archive.track(stored)
        archive.track(self.tokenizer)
        for name, (function, inputs) in self.endpoints().items():
            archive.add_endpoint(name, _never_empty(self._as_stored(function)), inputs)
        return archive

    def _as_stored(self, function: Callable[..., Outputs]) -> Callable[..., Outputs]:
        """The function, reading the weights that are exported."""
        small = self.small
        if small is None:
            return function

        def call(*inputs: tf.Tensor) -> Outputs:
            with small.reading():
                return function(*inputs)

        return call

    def _look(self, image_bytes: tf.Tensor) -> tuple[RegionsOrSeveral, tf.Tensor]:
        size = self.config.encoder.image_height, self.config.encoder.image_width
        pixels, error = read_images(image_bytes, *size)
        return self.captioner.regions({"image": pixels}), error

    def _greedy(self, regions: RegionsOrSeveral) -> Decoded:
        return greedy(
            self.captioner.generator, regions, self.tokenizer.sequence_length, self.constraints
        )

    def _several(self, decoded: Decoded, error: tf.Tensor) -> Outputs:
        captions, scores = self._spell(decoded, error)
        return {signature.CAPTIONS: captions, signature.SCORES: scores, signature.ERROR: error}

    def _spell(self, decoded: Decoded, error: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Captions and scores, [B, K] each, of rows without an error."""
        fine = (error == "")[:, None]
        captions = self.tokenizer.detokenize(decoded.token_ids)
        return tf.where(fine, captions, ""), tf.where(fine, decoded.scores, 0.0)


def _never_empty(function: Callable[..., Outputs]) -> Callable[..., Outputs]:
    """The function with a row of its own for no rows, on which some fused operations fail."""

    def call(*inputs: tf.Tensor) -> Outputs:
        rows = tf.shape(inputs[0])[0]
        missing = tf.cast(rows == 0, tf.int32)
        padded = [tf.concat([some, tf.zeros([missing], some.dtype)], axis=0) for some in inputs]
        return {name: some[:rows] for name, some in function(*padded).items()}

    return call
