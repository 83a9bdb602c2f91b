"""The supported data sets. A new layout is a new file with a class, and a line here."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

from caption_gan.config import DataConfig
from caption_gan.data.example import Example
from caption_gan.data.figures import FiguresWorld
from caption_gan.data.flickr8k import Flickr8kSource
from caption_gan.data.generated import GeneratedSource, World
from caption_gan.data.scenes import ScenesWorld
from caption_gan.data.skips import Skips
from caption_gan.errors import CaptionGANError


class Source(Protocol):
    """Images with captions in splits, of which `train` and `val` must be there."""

    @property
    def fingerprint(self) -> Any:
        """Something JSON can hold that differs if the examples may differ."""

    @property
    def images_of_split(self) -> dict[str, int]:
        """Highest number of examples of each split."""

    def examples(self, split: str) -> Iterator[Example]:
        """Yields the split's examples, always in the same order."""


WORLDS: dict[str, type[World]] = {"figures": FiguresWorld, "scenes": ScenesWorld}


def open_source(config: DataConfig, skips: Skips) -> Source:
    """Opens the data set that the settings name.

    Raises:
        CaptionGANError: It is not where the settings say, or not in its layout.
    """
    if config.source in WORLDS:
        images = {"train": config.train_images, "val": config.val_images}
        return GeneratedSource(
            WORLDS[config.source](),
            images | {"test": config.test_images},
            config.captions_per_image,
            config.seed,
        )
    if config.root is None:
        raise CaptionGANError(
            f"data.root is not set; data.source {config.source!r} needs the folder of the data."
        )
    return Flickr8kSource(Path(config.root).expanduser(), skips)


def truth_checker(config: DataConfig) -> Callable[[str, Any], bool] | None:
    """Tells whether a caption is true of an example's facts, where the data set knows facts."""
    return WORLDS[config.source]().is_true if config.source in WORLDS else None
