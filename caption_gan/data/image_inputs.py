"""Images as Python programs hold them (paths, bytes, PIL images, arrays), as encoded bytes.

Training decodes files. Pixels become PNG, which loses nothing, and take the same way as a file.

H image height, W image width.
"""

import io
import os
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from caption_gan.data.image_errors import why_undecodable
from caption_gan.data.images import is_image
from caption_gan.errors import CaptionGANError
from caption_gan.storage.paths import expand

ImageInput = str | os.PathLike[str] | bytes | Image.Image | np.ndarray

ARRAYS = "an array uint8 or float in [0, 1] of shape [H, W], [H, W, 3] or [H, W, 4]"
# What PNG stores as it is. Other modes, such as CMYK, become RGB.
PNG_MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")


def encode_image(image: ImageInput) -> bytes:
    """Returns the bytes of an image file.

    Args:
        image: Path or content of a file; a PIL image, which is turned upright by its EXIF
            orientation; or an array, uint8 or float in [0, 1], [H, W], [H, W, 3] or [H, W, 4].

    Returns:
        PNG, JPEG, GIF, BMP or WebP that training's decoder reads.

    Raises:
        CaptionGANError: The image cannot be read. The message begins with the verb, so that the
            caller can put the image's name before it.
    """
    if isinstance(image, np.ndarray):
        return _png(Image.fromarray(_to_uint8(image)))
    if isinstance(image, Image.Image):
        return _png(ImageOps.exif_transpose(image))
    if isinstance(image, str | os.PathLike):
        try:
            image = Path(expand(os.fspath(image))).read_bytes()
        except OSError as error:
            raise CaptionGANError(f"cannot be read: {error.strerror}") from error
    if not isinstance(image, bytes):
        raise CaptionGANError(
            f"is of type {type(image).__name__}; give a path, bytes, a PIL image or {ARRAYS}"
        )
    if not is_image(image):
        raise CaptionGANError(
            f"is not an image that can be decoded: it is {why_undecodable(image)}"
        )
    return image


def _to_uint8(array: np.ndarray) -> np.ndarray:
    described = f"is an array {array.dtype} of shape {list(array.shape)}"
    has_channels = array.ndim == 3 and array.shape[2] in (3, 4)
    if not (array.ndim == 2 or has_channels) or not array.size:
        raise CaptionGANError(f"{described}; give {ARRAYS}, and several images as a list")
    if array.dtype == np.uint8:
        return array
    if not np.issubdtype(array.dtype, np.floating):
        raise CaptionGANError(f"{described}; give {ARRAYS}")
    low, high = array.min(), array.max()
    if not (low >= 0 and high <= 1):  # NaN also fails both.
        raise CaptionGANError(
            f"{described} with values from {low:g} to {high:g}; divide them so that they lie in "
            "[0, 1], or convert the array to uint8"
        )
    return np.round(array * 255).astype(np.uint8)


def _png(image: Image.Image) -> bytes:
    try:
        if image.mode not in PNG_MODES:
            image = image.convert("RGB")
        stream = io.BytesIO()
        image.save(stream, "PNG")
    except (OSError, ValueError, SyntaxError) as error:  # PIL reads the file only now.
        raise CaptionGANError(f"cannot be read by PIL: {error}") from error
    return stream.getvalue()
