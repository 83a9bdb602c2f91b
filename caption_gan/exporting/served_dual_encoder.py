"""Writes a trained dual encoder as a SavedModel that embeds files, pixels, cached regions, texts.

B batch, H image height, W image width, S size of vectors.
"""

import json
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from caption_gan.data.image_batches import read_images
from caption_gan.models.dual_encoders.saved_model import CACHED, DESCRIPTION, INPUTS, OUTPUT, PIXELS
from caption_gan.models.dual_encoders.towers import ImageTower, TextTower

Outputs = dict[str, tf.Tensor]


class ServedDualEncoder:
    """The two towers with a method for each signature; vectors have length 1.

    Args:
        images: The image tower.
        texts: The text tower.
    """

    def __init__(self, images: ImageTower, texts: TextTower):
        self.image_tower = images
        self.text_tower = texts
        encoder = images.encoder
        self.image_size = (encoder.image_height, encoder.image_width)

    def images(self, image_bytes: tf.Tensor) -> Outputs:
        """Contents of image files [B] to vectors [B, S]; zero if they cannot be decoded."""
        pixels, error = read_images(image_bytes, *self.image_size)
        vectors = self.image_tower(self.image_tower.features({"image": pixels}))
        return {OUTPUT: tf.where((error == "")[:, None], vectors, 0.0)}

    def pixels(self, image: tf.Tensor) -> Outputs:
        """Pixels [B, H, W, 3] from 0 to 255, of any size, to vectors [B, S]."""
        resized = tf.image.resize(tf.cast(image, tf.float32), self.image_size, antialias=True)
        return {OUTPUT: self.image_tower(self.image_tower.features({"image": resized}))}

    def cached(self, regions: tf.Tensor) -> Outputs:
        """What the encoder caches of images, [B, ...], to vectors [B, S]."""
        return {OUTPUT: self.image_tower(self.image_tower.features({"regions": regions}))}

    def texts(self, text: tf.Tensor) -> Outputs:
        """Strings [B] to vectors [B, S]."""
        return {OUTPUT: self.text_tower(self.text_tower.features(text))}

    def write(self, path: Path, scale: float, description: dict[str, Any]) -> None:
        """Writes the SavedModel.

        Args:
            path: Its directory.
            scale: Factor of the cosines that was learnt.
            description: Written beside it, in addition to the scale and what the encoder's cached
                regions depend on.
        """
        encoder = self.image_tower.encoder
        archive = keras.export.ExportArchive()
        archive.track(self.image_tower)
        archive.track(self.text_tower)
        strings = tf.TensorSpec([None], tf.string)
        archive.add_endpoint("images", self.images, [_named(strings, "images")])
        archive.add_endpoint("texts", self.texts, [_named(strings, "texts")])
        pixels = tf.TensorSpec([None, None, None, 3], tf.uint8)
        archive.add_endpoint(PIXELS, self.pixels, [_named(pixels, PIXELS)])
        if encoder.cached_shape is not None:
            cached = tf.TensorSpec([None, *encoder.cached_shape], tf.float32)
            archive.add_endpoint(CACHED, self.cached, [_named(cached, CACHED)])
        archive.write_out(str(path), verbose=False)
        content = {"scale": scale, "encoder": encoder.cache_key, **description}
        (path / DESCRIPTION).write_text(json.dumps(content, indent=2) + "\n")


def _named(spec: tf.TensorSpec, signature: str) -> tf.TensorSpec:
    return tf.TensorSpec(spec.shape, spec.dtype, name=INPUTS[signature])
