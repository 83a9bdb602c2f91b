"""The supported data sets. To add a layout, write a file with one function and add a line here."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import tensorflow as tf

from caption_gan.config.data import DataConfig
from caption_gan.data.example import Example
from caption_gan.data.skips import Skips
from caption_gan.data.sources.coco import open_coco
from caption_gan.data.sources.features import open_features
from caption_gan.data.sources.flickr import open_flickr
from caption_gan.data.sources.folder import open_folder
from caption_gan.data.sources.hugging_face import open_hugging_face
from caption_gan.data.sources.scicap import open_scicap
from caption_gan.data.synthetic.dataset import SyntheticDataset, SyntheticSource
from caption_gan.data.synthetic.figures import FiguresDataset
from caption_gan.data.synthetic.scenes import ScenesDataset
from caption_gan.errors import CaptionGANError
from caption_gan.storage import filesystem
from caption_gan.storage.paths import resolve


class Source(Protocol):
    """Captioned images in splits, among them `train` and `val`."""

    @property
    def fingerprint(self) -> Any:
        """JSON-serializable value that changes whenever the examples may change."""

    @property
    def images_of_split(self) -> dict[str, int]:
        """Number of positions of each split; some of their images may turn out to be unusable."""

    def image_ids(self) -> Iterator[str]:
        """Yields the id of each image of all splits."""

    def examples(self, split: str, positions: range) -> Iterator[Example]:
        """Yields the usable examples at these positions, in order; each call yields the same."""


LAYOUTS: dict[str, Callable[[DataConfig, Skips], Source]] = {
    "coco": open_coco,
    "features": open_features,
    "flickr": open_flickr,
    "folder": open_folder,
    "hugging_face": open_hugging_face,
    "scicap": open_scicap,
}
SYNTHETIC: dict[str, type[SyntheticDataset]] = {
    "figures": FiguresDataset,
    "scenes": ScenesDataset,
}


def open_source(config: DataConfig, skips: Skips) -> Source:
    """Opens the data set that the settings name.

    Args:
        config: The settings.
        skips: Counts what cannot be used, now and while examples are read.

    Raises:
        CaptionGANError: The data set is not where the settings say, or not in the layout they name.
    """
    if config.source in SYNTHETIC:
        images = {"train": config.train_images, "val": config.val_images}
        return SyntheticSource(
            SYNTHETIC[config.source](),
            images | {"test": config.test_images},
            config.captions_per_image,
            config.seed,
        )
    if config.root is None:
        raise CaptionGANError(
            f"data.root is not set; data.source {config.source!r} needs the folder of the data "
            "set: --data.root FOLDER."
        )
    root = resolve(config.root)
    if config.source == "hugging_face":  # Its root may also be a file, or a name on the Hub.
        is_there = not config.root.startswith(("/", "~", ".")) or tf.io.gfile.exists(root)
    else:
        config = dataclasses.replace(config, root=root)
        is_there = filesystem.is_folder(root)
    if not is_there:
        raise CaptionGANError(
            f"data.root: {root} is not a folder; give the folder of the data set: --data.root "
            "FOLDER."
        )
    if config.source in ("coco", "flickr") and config.karpathy is not None:
        path = resolve(config.karpathy)
        if not filesystem.is_file(path):
            raise CaptionGANError(
                f"data.karpathy: {path} is not a file; give the file of Karpathy's splits: "
                "--data.karpathy FILE."
            )
    return LAYOUTS[config.source](config, skips)


def build_fact_checker(config: DataConfig) -> Callable[[str, Any], bool] | None:
    """Tells whether a caption is true of an image's facts; None if the data set has no facts."""
    return SYNTHETIC[config.source]().is_true if config.source in SYNTHETIC else None
