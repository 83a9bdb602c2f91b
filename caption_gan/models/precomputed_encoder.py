"""Regions that somebody else's network has computed, such as detections of objects.

B batch, R regions, D region depth.
"""

import math
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from caption_gan.errors import CaptionGANError


@keras.saving.register_keras_serializable(package="caption_gan")
class PrecomputedEncoder(keras.Model):
    """Reads regions from files, where other encoders compute them from pixels; cannot be called.

    Args:
        folder: Has a file for each image, named after it with `.npy` for its ending. It holds
            numbers [R, D], alike for all images, or [D] for one region.

    Raises:
        CaptionGANError: There is no such folder, it has no such files, or the first of them holds
            something else.
    """

    def __init__(self, folder: str, **kwargs):
        super().__init__(**kwargs)
        self.folder = folder
        first = min(Path(folder).glob("*.npy"), default=None)
        if first is None:
            raise CaptionGANError(
                f"encoder.regions: {folder} is no folder with regions; expected a file .npy for "
                "each image, named after it."
            )
        self.regions_shape: tuple[int, ...] = _load(first).shape
        rows = math.isqrt(self.regions_shape[0])
        # Where regions lie in the image is not known; most often they are a square grid.
        square = rows**2 == self.regions_shape[0]
        self.grid = (rows, rows) if square else (1, self.regions_shape[0])
        self.cached_shape = self.regions_shape
        self.pretrained_variables: list[keras.Variable] = []
        self.built = True

    def read(self, image_id: str) -> np.ndarray | None:
        """Regions [R, D] of an image, None where the folder has none.

        Raises:
            CaptionGANError: The file holds something else.
        """
        path = Path(self.folder) / f"{Path(image_id).stem}.npy"
        if not path.is_file():
            return None
        regions = _load(path)
        if regions.shape != self.regions_shape:
            raise CaptionGANError(
                f"encoder.regions: {path} holds {regions.shape}, other files of its folder "
                f"{self.regions_shape} numbers; compute as many regions for every image."
            )
        return regions

    def after_cache(self, cached: tf.Tensor) -> tf.Tensor:
        """Regions [B, R, D] are kept as they are."""
        return cached

    def fingerprint(self) -> Any:
        """Something JSON can hold that differs if the regions may differ."""
        files = [(path.name, path.stat()) for path in sorted(Path(self.folder).glob("*.npy"))]
        return [(name, status.st_size, status.st_mtime_ns) for name, status in files]

    def get_config(self):
        return {**super().get_config(), "folder": self.folder}


def _load(path: Path) -> np.ndarray:
    try:
        regions = np.load(path)
        regions = np.atleast_2d(regions).astype(np.float16)
    except (OSError, ValueError, TypeError) as error:
        raise CaptionGANError(f"encoder.regions: {path} cannot be read: {error}.") from error
    if regions.ndim != 2 or not np.isfinite(regions).all():
        raise CaptionGANError(
            f"encoder.regions: {path} must hold finite numbers [regions, depth] within float16; "
            f"found shape {regions.shape}."
        )
    return regions
