"""The supported data sets. A new layout is a new file with a function, and a line here."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from caption_gan.config.data import DataConfig
from caption_gan.data.example import Example
from caption_gan.data.skips import Skips
from caption_gan.data.sources.coco import open_coco
from caption_gan.data.sources.features import open_features
from caption_gan.data.sources.flickr import open_flickr
from caption_gan.data.sources.folder import open_folder
from caption_gan.data.sources.hugging_face import open_hugging_face
from caption_gan.data.sources.scicap import open_scicap
from caption_gan.data.synthetic.figures import FiguresWorld
from caption_gan.data.synthetic.generated import GeneratedSource, World
from caption_gan.data.synthetic.scenes import ScenesWorld
from caption_gan.errors import CaptionGANError
from caption_gan.storage import filesystem


class Source(Protocol):
    """Images with captions in splits, of which `train` and `val` must be there."""

    @property
    def fingerprint(self) -> Any:
        """Something JSON can hold that differs if the examples may differ."""

    @property
    def images_of_split(self) -> dict[str, int]:
        """Number of positions of each split: its images, or more where some cannot be used."""

    def examples(self, split: str, positions: range) -> Iterator[Example]:
        """Yields what the split has at these positions, in order and always the same."""


WORLDS: dict[str, type[World]] = {"figures": FiguresWorld, "scenes": ScenesWorld}
LAYOUTS: dict[str, Callable[[DataConfig, Skips], Source]] = {
    "coco": open_coco,
    "features": open_features,
    "flickr": open_flickr,
    "folder": open_folder,
    "hugging_face": open_hugging_face,
    "scicap": open_scicap,
}


def open_source(config: DataConfig, skips: Skips) -> Source:
    """Opens the data set that the settings name.

    Args:
        config: The settings.
        skips: Gets what cannot be used, now and when examples are read.

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
    if config.source != "hugging_face":  # There it may be a name on the Hub.
        config = dataclasses.replace(config, root=filesystem.resolve(config.root))
        if not filesystem.is_folder(str(config.root)):
            raise CaptionGANError(
                f"data.root: {config.root} is not a folder; give the folder of the data set."
            )
    return LAYOUTS[config.source](config, skips)


def build_fact_checker(config: DataConfig) -> Callable[[str, Any], bool] | None:
    """Tells whether a caption is true of an example's facts, where the data set knows facts."""
    return WORLDS[config.source]().is_true if config.source in WORLDS else None
