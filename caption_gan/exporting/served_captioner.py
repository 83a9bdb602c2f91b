"""The functions behind the served signatures: image bytes in, captions out, all in the graph.

B batch, K captions per image, T time, R regions.
"""

from collections.abc import Callable

import keras
import tensorflow as tf

from caption_gan import signature
from caption_gan.config.run import Config
from caption_gan.data.image_batches import read_images
from caption_gan.exporting.quantization import QuantizedWeights
from caption_gan.models.captioner import Captioner
from caption_gan.models.decoding.beam_search import beam_search
from caption_gan.models.decoding.decoder import Decoded, DecodingOptions, RegionsOrSeveral
from caption_gan.models.decoding.ensemble import CaptionerEnsemble
from caption_gan.models.decoding.sampling import greedy, sample_rows
from caption_gan.text.tokenizer import Tokenizer

MIN_BEAM = 5  # The signature `beam` searches at least this width: a run may be set to 1.

Outputs = dict[str, tf.Tensor]


class ServedCaptioner:
    """A captioner with a method for each served signature.

    A row that is not an image gets an `error`, an empty caption and the score 0.

    Args:
        captioner: A trained captioner, or an ensemble.
        tokenizer: The captioner's tokenizer.
        config: Of the run: image size, number of samples, beam width.

    Attributes:
        quantized: Weights to export instead of the captioner's variables, or None.
    """

    def __init__(
        self, captioner: Captioner | CaptionerEnsemble, tokenizer: Tokenizer, config: Config
    ):
        self.captioner = captioner
        self.tokenizer = tokenizer
        self.config = config
        self.quantized: QuantizedWeights | None = None
        self.options = DecodingOptions.from_config(config.decoding, tokenizer)

    def default(self, image_bytes: tf.Tensor) -> Outputs:
        """Greedy captions."""
        regions, error = self._encode(image_bytes)
        captions, scores = self._detokenize(self._greedy(regions), error)
        return {
            signature.CAPTION: captions[:, 0],
            signature.SCORE: scores[:, 0],
            signature.ERROR: error,
        }

    def sample(
        self, image_bytes: tf.Tensor, temperature: tf.Tensor, top_p: tf.Tensor, seed: tf.Tensor
    ) -> Outputs:
        """K sampled captions per image; those of a row do not depend on the other rows."""
        regions, error = self._encode(image_bytes)
        options = self.options._replace(temperature=temperature, top_p=top_p)
        sampled = sample_rows(self.captioner.generator, regions, options, seed)
        return self._all_captions(sampled, error)

    def beam(self, image_bytes: tf.Tensor) -> Outputs:
        """The K best captions of beam search, best first."""
        regions, error = self._encode(image_bytes)
        options = self.options
        if options.beam_groups == 1:  # Otherwise, the width must be a multiple of their number.
            options = options._replace(beam=max(options.beam, MIN_BEAM))
        beams = beam_search(self.captioner.generator, regions, options)
        return self._all_captions(beams, error)

    def attention(self, image_bytes: tf.Tensor) -> Outputs:
        """Greedy captions, their tokens, and the attention weights of each token."""
        regions, error = self._encode(image_bytes)
        decoded = self._greedy(regions)
        captions, _ = self._detokenize(decoded, error)
        tokens = self.tokenizer.token_strings(decoded.token_ids[:, 0])  # [B, T]
        special = tf.reduce_any(tokens[..., None] == ["[PAD]", "[END]"], axis=-1)
        weights = tf.convert_to_tensor(decoded.attention)[:, 0]  # [B, T, R]
        hidden = special | (error != "")[:, None]
        return {
            signature.CAPTION: captions[:, 0],
            signature.TOKENS: tf.where(hidden, "", tokens),
            signature.WEIGHTS: tf.where(hidden[..., None], 0.0, weights),
            signature.ERROR: error,
        }

    def examples(self, examples: tf.Tensor) -> Outputs:
        """Greedy captions of serialized `tf.train.Example`s."""
        features = {signature.ENCODED: tf.io.FixedLenFeature([], tf.string, default_value="")}
        parsed = tf.io.parse_example(examples, features)
        return self.default(parsed[signature.ENCODED])

    def endpoints(self) -> dict[str, tuple[Callable[..., Outputs], list[tf.TensorSpec]]]:
        """The function and the input specifications of each signature."""

        def batch_of(name: str, dtype: tf.DType = tf.string) -> tf.TensorSpec:
            return tf.TensorSpec([None], dtype, name)

        image_bytes = batch_of(signature.IMAGE_BYTES)
        endpoints: dict[str, tuple[Callable[..., Outputs], list[tf.TensorSpec]]] = {
            signature.DEFAULT: (self.default, [image_bytes]),
            signature.SAMPLE: (
                self.sample,
                [
                    image_bytes,
                    batch_of(signature.TEMPERATURE, tf.float32),
                    batch_of(signature.TOP_P, tf.float32),
                    batch_of(signature.SEED, tf.int64),
                ],
            ),
            signature.BEAM: (self.beam, [image_bytes]),
            signature.ATTENTION: (self.attention, [image_bytes]),
            signature.EXAMPLES: (self.examples, [batch_of(signature.SERIALIZED)]),
        }
        if not self.captioner.generator.has_attention:
            del endpoints[signature.ATTENTION]
        return endpoints

    def archive(self) -> keras.export.ExportArchive:
        """All signatures, with the weights and the vocabulary."""
        archive = keras.export.ExportArchive()
        for resource in self.quantized.weights() if self.quantized else [self.captioner]:
            archive.track(resource)
        archive.track(self.tokenizer)
        for name, (function, inputs) in self.endpoints().items():
            function = _accept_empty_batches(self._with_exported_weights(function))
            archive.add_endpoint(name, function, inputs)
        return archive

    def _with_exported_weights(self, function: Callable[..., Outputs]) -> Callable[..., Outputs]:
        """The function, using the quantized weights if there are any."""
        quantized = self.quantized
        if quantized is None:
            return function

        def call(*inputs: tf.Tensor) -> Outputs:
            with quantized.scope():
                return function(*inputs)

        return call

    def _encode(self, image_bytes: tf.Tensor) -> tuple[RegionsOrSeveral, tf.Tensor]:
        pixels, error = read_images(image_bytes, *self.config.encoder.image_size)
        return self.captioner.regions({"image": pixels}), error

    def _greedy(self, regions: RegionsOrSeveral) -> Decoded:
        return greedy(self.captioner.generator, regions, self.options)

    def _all_captions(self, decoded: Decoded, error: tf.Tensor) -> Outputs:
        captions, scores = self._detokenize(decoded, error)
        return {signature.CAPTIONS: captions, signature.SCORES: scores, signature.ERROR: error}

    def _detokenize(self, decoded: Decoded, error: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Captions and scores, [B, K] each; empty and 0 in rows with an error."""
        valid = (error == "")[:, None]
        captions = self.tokenizer.detokenize(decoded.token_ids)
        return tf.where(valid, captions, ""), tf.where(valid, decoded.scores, 0.0)


def _accept_empty_batches(function: Callable[..., Outputs]) -> Callable[..., Outputs]:
    """Pads an empty batch with a row and removes it: some fused operations fail on no rows."""

    def call(*inputs: tf.Tensor) -> Outputs:
        rows = tf.shape(inputs[0])[0]
        missing = tf.cast(rows == 0, tf.int32)
        padded = [
            tf.concat([tensor, tf.zeros([missing], tensor.dtype)], axis=0) for tensor in inputs
        ]
        return {name: tensor[:rows] for name, tensor in function(*padded).items()}

    return call
