"""A trained captioner for Python programs: it captions any image and scores any caption.

B batch, H image height, W image width, T time.
"""

import dataclasses
import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TypeGuard, cast, overload

import numpy as np

from caption_gan.data.image_inputs import ImageInput, encode_image
from caption_gan.errors import CaptionGANError


@dataclasses.dataclass(frozen=True)
class Caption:
    """A caption of an image.

    Attributes:
        text: The caption.
        score: Mean log-probability per token, in nats, the end token included; 0 is the best.
        attention: How much the generator attended to each region when it generated each token,
            float32 [T, rows, columns]; None unless asked for.
        tokens: The T tokens, without the end token; None unless attention was asked for.
    """

    text: str
    score: float
    attention: np.ndarray | None = dataclasses.field(default=None, compare=False, repr=False)
    tokens: tuple[str, ...] | None = None


@dataclasses.dataclass(frozen=True)
class CaptionScore:
    """How well a caption fits an image.

    Attributes:
        log_likelihood: Mean log-probability per token, in nats, the end token included.
        critic: The critic's score, without bounds; higher is better. None if the run has none.
    """

    log_likelihood: float
    critic: float | None


@dataclasses.dataclass(frozen=True)
class CaptionOptions:
    """The arguments of `TrainedCaptioner.caption` other than the images, checked."""

    n: int
    temperature: float
    top_p: float | None
    beam: int
    seed: int
    attention: bool

    def __post_init__(self) -> None:
        for name, value in (("n", self.n), ("beam", self.beam)):
            if value < 1:
                raise CaptionGANError(f"{name} is {value}; give 1 or more.")
        if not self.temperature > 0:
            raise CaptionGANError(f"temperature is {self.temperature}; give a number above 0.")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise CaptionGANError(f"top_p is {self.top_p}; give a number above 0 and up to 1.")


class TrainedCaptioner(ABC):
    """Captions images; `caption_gan.load` returns one.

    Attributes:
        path: The run directory or SavedModel that it was loaded from.
    """

    path: Path

    @overload  # A path is also a sequence of strings; the first signature wins.
    def caption(  # type: ignore[overload-overlap]
        self,
        images: ImageInput,
        n: int = ...,
        temperature: float = ...,
        top_p: float | None = ...,
        beam: int = ...,
        seed: int = ...,
        attention: bool = ...,
    ) -> list[Caption]: ...

    @overload
    def caption(
        self,
        images: Sequence[ImageInput],
        n: int = ...,
        temperature: float = ...,
        top_p: float | None = ...,
        beam: int = ...,
        seed: int = ...,
        attention: bool = ...,
    ) -> list[list[Caption]]: ...

    def caption(
        self,
        images: ImageInput | Sequence[ImageInput],
        n: int = 5,
        temperature: float = 0.8,
        top_p: float | None = None,
        beam: int = 1,
        seed: int = 0,
        attention: bool = False,
    ) -> list[Caption] | list[list[Caption]]:
        """Captions one image or a list of images.

        The first caption takes the likeliest word at each step; the others are samples, the
        likeliest first. With `beam` above 1, all are from a beam search, the best first. Captions
        of an image do not depend on the other images of the list.

        Args:
            images: An image or a list of images. An image is a path, the bytes of a file (PNG,
                JPEG, GIF, BMP or WebP), a PIL image, or an array, uint8 or float in [0, 1], of
                shape [H, W], [H, W, 3] or [H, W, 4]. It may be of any size.
            n: Captions per image, at most; a beam search finds as many as it is wide.
            temperature: Of samples; lower values give likelier words.
            top_p: Samples are drawn from the likeliest words that together reach this
                probability. None takes the run's setting; 1 for a SavedModel.
            beam: Width of the beam search; 1 samples instead. A SavedModel has one fixed width.
            seed: Of samples.
            attention: Whether captions have `attention` and `tokens`. A SavedModel has them for
                the likeliest caption only, so they need n=1.

        Returns:
            Captions of the image; for a list of images, such a list for each of them.

        Raises:
            CaptionGANError: An image cannot be read, an argument is out of range, or a SavedModel
                was exported without what is asked for.
        """
        options = CaptionOptions(n, temperature, top_p, beam, seed, attention)
        captions = [self._caption(image, options) for image in _encoded(images)]
        return captions if _is_list(images) else captions[0]

    @overload
    def score(  # type: ignore[overload-overlap]
        self, images: ImageInput, captions: str
    ) -> CaptionScore: ...

    @overload
    def score(
        self, images: Sequence[ImageInput], captions: Sequence[str]
    ) -> list[CaptionScore]: ...

    def score(
        self, images: ImageInput | Sequence[ImageInput], captions: str | Sequence[str]
    ) -> CaptionScore | list[CaptionScore]:
        """Scores captions that anyone may have written.

        Args:
            images: An image or a list of images; see `caption`.
            captions: The image's caption, or one caption for each image of the list. Repeat an
                image to score several captions of it.

        Returns:
            The score, or one for each image. The log-likelihood of the first caption that
            `caption` gives is its score.

        Raises:
            CaptionGANError: An image cannot be read, the numbers of images and captions differ,
                or the captioner is a SavedModel, which cannot score.
        """
        encoded = _encoded(images)
        texts = [captions] if isinstance(captions, str) else list(captions)
        if _is_list(images) == isinstance(captions, str) or len(encoded) != len(texts):
            raise CaptionGANError(
                f"score: got {len(encoded)} images and {len(texts)} captions; give one image with "
                "one string, or a list of images with an equally long list of strings."
            )
        scores = self._score(encoded, texts)
        return scores if _is_list(images) else scores[0]

    @abstractmethod
    def _caption(self, image: bytes, options: CaptionOptions) -> list[Caption]:
        """Captions one image."""

    @abstractmethod
    def _score(self, images: Sequence[bytes], captions: Sequence[str]) -> list[CaptionScore]:
        """Scores one caption per image."""


def _is_list(images: ImageInput | Sequence[ImageInput]) -> TypeGuard[Sequence[ImageInput]]:
    return isinstance(images, list | tuple)


def _encoded(images: ImageInput | Sequence[ImageInput]) -> list[bytes]:
    """Encodes one image or several; an error names the image that cannot be read."""
    several = _is_list(images)
    encoded = []
    for number, image in enumerate(cast(Sequence[ImageInput], images if several else [images])):
        try:
            encoded.append(encode_image(image))
        except CaptionGANError as error:
            name = f"images[{number}]" if several else "the image"
            path = f" ({image})" if isinstance(image, str | os.PathLike) else ""
            raise CaptionGANError(f"{name}{path} {error}.") from error
    return encoded
