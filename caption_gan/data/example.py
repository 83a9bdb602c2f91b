"""What every source yields: one image with its captions."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Example:
    """One image and the captions people (or a generator) gave it.

    Attributes:
        image_id: Unique within its data set; a file name without its folder, or a running number.
        image: Encoded image bytes (PNG, JPEG, GIF, BMP or WebP), as found on disk.
        captions: One or more captions, raw text.
        facts: What is known to be true of the image, as JSON; empty for real data. Only the
            built-in data sets know it, see `caption_gan.data.synthetic.dataset`.
        image_text: Text that was read from the image, such as the labels of a figure's axes; empty
            where nobody has read it.
    """

    image_id: str
    image: bytes
    captions: tuple[str, ...]
    facts: str = ""
    image_text: str = ""
