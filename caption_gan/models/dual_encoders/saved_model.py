"""Embeds images and texts in a common space with a model such as CLIP, from a SavedModel.

N images or texts, B batch, D embedding, H image height, W image width.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

# Registers the operations of a tokenizer, which is often part of the model.
import tensorflow_text  # noqa: F401

from caption_gan.errors import CaptionGANError
from caption_gan.models.encoders.encoder import Encoder

PIXELS, CACHED = "pixels", "cached"
INPUTS = {"images": "image_bytes", "texts": "text", PIXELS: "image", CACHED: "regions"}
NEEDED = ("images", "texts")
OUTPUT = "embedding"
# Beside a model that `caption_gan.train_dual_encoder` wrote.
DESCRIPTION = "dual_encoder.json"
CLIP_SCALE = 100.0  # Of the cosines of CLIP's published models.


class DualEncoder:
    """A SavedModel with two signatures that embed images and texts.

    * `images`: `image_bytes`, the files' contents, string [B], to `embedding`, float [B, D].
    * `texts`: `text`, string [B], to `embedding`, float [B, D].

    Those that `caption_gan.train_dual_encoder` writes have two more, which training reads:

    * `pixels`: `image`, uint8 [B, H, W, 3], to `embedding`.
    * `cached`: `regions`, what the encoder caches of images, to `embedding`.

    Any model that embeds images near their descriptions can be exported to this form (Radford et
    al., "Learning Transferable Visual Models From Natural Language Supervision", 2021). The
    signatures include decoding, resizing and tokenizing.
    """

    def __init__(self, path: Path, batch_size: int = 64):
        """Loads the model.

        Args:
            path: Directory of the SavedModel.
            batch_size: Maximum number of images or texts per call of the model.

        Raises:
            CaptionGANError: `path` is not a SavedModel, cannot be loaded, has other signatures, or
                embeds images and texts in spaces of different sizes.
        """
        self.path = path
        self.batch_size = batch_size
        if not tf.saved_model.contains_saved_model(str(path)):
            raise CaptionGANError(
                f"dual encoder: expected the directory of a SavedModel, found none at {path}"
            )
        try:
            # Keep the model itself: its signatures do not keep the variables alive.
            self._model = tf.saved_model.load(str(path))
        except (OSError, ValueError, tf.errors.OpError) as error:
            raise CaptionGANError(
                f"dual encoder: expected a SavedModel that TensorFlow can load at {path}: {error}"
            ) from error
        for name in NEEDED:
            self._expect_signature(name)
        sizes = [self._model.signatures[name].structured_outputs[OUTPUT].shape for name in NEEDED]
        if not sizes[0].is_compatible_with(sizes[1]):
            raise CaptionGANError(
                f"dual encoder: expected images and texts to have embeddings of one size, found "
                f"{sizes[0]} and {sizes[1]}: {path}"
            )
        described = path / DESCRIPTION
        self.description = json.loads(described.read_text()) if described.is_file() else {}

    @property
    def scale(self) -> float:
        """Factor of the cosines with which it was trained, the inverse of its temperature."""
        return self.description.get("scale", CLIP_SCALE)

    def images(self, batch: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """Vectors [B, D] of length 1 of a batch's images, in the graph.

        Args:
            batch: With `regions`, what the encoder that `check_fits` accepted caches of images, or
                with their pixels, `image` [B, H, W, 3].
        """
        if "regions" in batch:
            return self._vectors(CACHED, tf.cast(batch["regions"], tf.float32))
        pixels = tf.cast(batch["image"], tf.uint8)
        if PIXELS in self._model.signatures:
            return self._vectors(PIXELS, pixels)
        files = tf.map_fn(tf.io.encode_png, pixels, fn_output_signature=tf.string)  # [B]
        return self._vectors("images", files)

    def texts(self, texts: tf.Tensor) -> tf.Tensor:
        """Vectors [B, D] of length 1 of strings [B], in the graph."""
        return self._vectors("texts", texts)

    def _vectors(self, name: str, values: tf.Tensor) -> tf.Tensor:
        vectors = self._model.signatures[name](**{INPUTS[name]: values})[OUTPUT]
        return tf.math.l2_normalize(tf.cast(vectors, tf.float32), axis=-1)

    def check_fits(self, encoder: Encoder) -> None:
        """Checks that `images` can read the batches of a run with this encoder.

        Raises:
            CaptionGANError: The batches hold regions that another encoder caches.
        """
        key = encoder.cache_key
        if not key:  # Batches hold pixels.
            return
        known = self.description.get("encoder", {})
        remedy = (
            "train one by `python -m caption_gan.train_dual_encoder` with the encoder settings of "
            "the run"
        )
        if CACHED not in self._model.signatures:
            raise CaptionGANError(
                f"dual encoder: {self.path} takes no cached regions, which the batches of this run "
                f"hold in place of images; {remedy}."
            )
        for name in {**known, **key}:
            if known.get(name) != key.get(name):
                raise CaptionGANError(
                    f"dual encoder: {self.path} was trained with encoder.{name} "
                    f"{known.get(name)!r}, this run has {key.get(name)!r}; {remedy}."
                )

    def embed_images(self, images: Sequence[bytes]) -> np.ndarray:
        """Embeds the contents of image files as rows of length 1, [N, D].

        Raises:
            CaptionGANError: If the model does not return one finite, nonzero row per image.
        """
        return self._embed("images", images)

    def embed_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Embeds texts as rows of length 1, [N, D].

        Raises:
            CaptionGANError: If the model does not return one finite, nonzero row per text.
        """
        return self._embed("texts", texts)

    def _embed(self, name: str, values: Sequence[bytes] | Sequence[str]) -> np.ndarray:
        signature = self._model.signatures[name]
        batches = []
        for start in range(0, len(values), self.batch_size):
            batch = tf.constant(values[start : start + self.batch_size], tf.string)  # [B]
            embeddings = signature(**{INPUTS[name]: batch})[OUTPUT].numpy()
            if embeddings.ndim != 2 or len(embeddings) != len(batch):
                raise CaptionGANError(
                    f"dual encoder: expected `{name}` to give embeddings [{len(batch)}, size], "
                    f"found {list(embeddings.shape)}: {self.path}"
                )
            batches.append(embeddings.astype(np.float32))
        rows = np.concatenate(batches)  # [N, D]
        lengths = np.linalg.norm(rows, axis=1, keepdims=True)  # [N, 1]
        wrong = np.flatnonzero(~np.isfinite(lengths) | (lengths == 0))
        if wrong.size:
            raise CaptionGANError(
                f"dual encoder: expected `{name}` to give finite embeddings, not all zero; found "
                f"{rows[wrong[0]]} for number {wrong[0]}: {self.path}"
            )
        return rows / lengths

    def _expect_signature(self, name: str) -> None:
        signatures = self._model.signatures
        if name not in signatures:
            raise CaptionGANError(
                f"dual encoder: expected the signatures {list(NEEDED)}, "
                f"found {list(signatures)}: {self.path}"
            )
        inputs = signatures[name].structured_input_signature[1]
        outputs = signatures[name].structured_outputs
        is_input = inputs.keys() == {INPUTS[name]} and inputs[INPUTS[name]].dtype == tf.string
        if not is_input or OUTPUT not in outputs or not outputs[OUTPUT].dtype.is_floating:
            raise CaptionGANError(
                f"dual encoder: expected `{name}` to map `{INPUTS[name]}`, string [batch], to "
                f"`{OUTPUT}`, float [batch, size]; found {_described(inputs)} to "
                f"{_described(outputs)}: {self.path}"
            )


def load_dual_encoder(path: str | None) -> DualEncoder | None:
    """Loads the dual encoder that `evaluation.dual_encoder` names; None if it names none."""
    return DualEncoder(Path(path)) if path is not None else None


def _described(tensors: dict[str, Any]) -> str:
    """Describes tensors, e.g. as `text`, string [None]."""
    described = (f"`{name}`, {of.dtype.name} {of.shape}" for name, of in tensors.items())
    return "; ".join(described) or "nothing"
