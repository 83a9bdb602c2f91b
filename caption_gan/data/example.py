"""What every source yields: one image with its captions."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Example:
    """One image and the captions people (or a generator) gave it.

    Attributes:
        image_id: Unique within its data set; a file name without its folder, or a running number.
        image: Encoded image bytes (PNG, JPEG, GIF or BMP), as found on disk.
        captions: One or more captions, raw text.
        facts: What is known to be true of the image, as JSON; empty for real data. Only the
            built-in data sets know it, see `caption_gan.data.generated`.
    """

    image_id: str
    image: bytes
    captions: tuple[str, ...]
    facts: str = ""
