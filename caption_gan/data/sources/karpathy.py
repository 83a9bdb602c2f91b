"""Karpathy's splits of COCO, Flickr8k and Flickr30k: one JSON file of images and captions."""

from collections.abc import Callable

from caption_gan.data.skips import Skips
from caption_gan.data.sources.image_files import ImageFile, image_name
from caption_gan.data.sources.json_records import check_records, read_records
from caption_gan.data.sources.splits import SPLITS, split_name
from caption_gan.storage import filesystem


def read_karpathy(
    path: str, folder: Callable[[str], str], skips: Skips, encoding: str | None = None
) -> dict[str, list[ImageFile]]:
    """Image files of each split that is not empty; `restval` is part of `train`, as usual.

    Args:
        path: The file, e.g. `dataset_coco.json`.
        folder: Returns the folder of an image, given its `filepath` or "" if it has none.
        skips: Counts images of unknown splits.
        encoding: As in `text_files.read_text`.

    Raises:
        CaptionGANError: The file is missing, damaged or of another format.
    """
    keys = {"filename": str, "split": str, "sentences": list}
    (images,) = read_records(path, {"images": keys}, encoding)
    splits: dict[str, list[ImageFile]] = {split: [] for split in SPLITS}
    for image in images:
        name = image_name(image["filename"])
        split = "train" if image["split"] == "restval" else split_name(image["split"])
        if split is None:
            skips.add(f"images are of an unknown split {image['split']!r}", name)
            continue
        check_records(path, f"sentences of {name}", image["sentences"], {"raw": str})
        captions = tuple(sentence["raw"] for sentence in image["sentences"])
        image_path = filesystem.join(folder(image.get("filepath") or ""), name)
        splits[split].append(ImageFile(name, image_path, captions))
    return {split: entries for split, entries in splits.items() if entries}
