"""The data that a run or SavedModel was evaluated with, as its `metrics.json` records them.

Data sets move. The images and captions, not their place, say whether they are the same.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from caption_gan.config.run import Config
from caption_gan.data.shards.files import PreparedSplit
from caption_gan.data.shards.prepare import read_complete_split, split_if_prepared
from caption_gan.errors import CaptionGANError
from caption_gan.models.encoders.encoder import Encoder


def known_data(metrics: Path) -> dict[str, dict[str, Any]]:
    """Returns the descriptions of the splits in earlier metrics; empty if there are none yet."""
    return json.loads(metrics.read_text()).get("data", {}) if metrics.is_file() else {}


def describe_data(prepared: PreparedSplit) -> dict[str, Any]:
    """Describes a split for `metrics.json`."""
    return {
        "images": prepared.images,
        "digest": prepared.digest,
        "shards": prepared.directory,
    }


def describe_difference(
    known: Mapping[str, Mapping[str, Any]], prepared: PreparedSplit
) -> str | None:
    """Describes how a split differs from the one of earlier metrics; None if it does not.

    Args:
        known: As `known_data` returns it.
        prepared: The split as it is now.
    """
    earlier = known.get(prepared.split)
    if earlier is None or earlier["digest"] == prepared.digest:
        return None
    if earlier["images"] == prepared.images:
        difference = f"its {prepared.images} images or their captions are others"
    else:
        difference = f"it has {prepared.images} images instead of {earlier['images']}"
    return (
        f"the split {prepared.split!r} differs from the one that was evaluated before: "
        f"{difference}, so their scores cannot be compared"
    )


def training_split(
    config: Config, encoder: Encoder, known: Mapping[str, Mapping[str, Any]]
) -> PreparedSplit | None:
    """The training split if it is prepared, else its earlier shards if they are still there.

    Args:
        config: Settings of the run.
        encoder: Encoder of the run.
        known: As `known_data` returns it.
    """
    prepared = split_if_prepared(config, encoder, "train")
    if prepared is not None:
        return prepared
    try:
        earlier = read_complete_split(known["train"]["shards"], "train")
    except (KeyError, CaptionGANError):
        return None
    return earlier if earlier.digest == known["train"]["digest"] else None
