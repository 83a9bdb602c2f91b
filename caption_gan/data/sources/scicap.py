"""SciCap (Hsu et al., 2021) as released, and FigCaps-HF, whose folders have shorter names.

    SciCap-Caption-All/train/1001.0025v1-Figure2-1.json    a figure's caption in 4 forms
    SciCap-No-Subfig-Img/train/1001.0025v1-Figure2-1.png   or SciCap-Yes-Subfig-Img/
    List-of-Files-for-Each-Experiments/First-Sentence/No-Subfig/train/file_idx.json

There are 400,000 records; each is read with its figure, not when the data set is opened.
"""

import dataclasses
import functools
import json
import operator
import os
import textwrap
from typing import Any

from caption_gan.config.data import DataConfig, SciCapConfig
from caption_gan.data.example import Example
from caption_gan.data.skips import SkipError, Skips, shown
from caption_gan.data.sources.image_files import ImageFile, ImageFileSource, read_image
from caption_gan.data.sources.splits import SPLITS
from caption_gan.errors import CaptionGANError
from caption_gan.storage import filesystem, text_files

LISTS = "List-of-Files-for-Each-Experiments"
COLLECTIONS = {
    "first_sentence": "First-Sentence",
    "single_sentence": "Single-Sentence-Caption",
    "at_most_100_tokens": "Caption-No-More-Than-100-Tokens",
}
# Keys of each form of the caption in a record. The release spells "euqation".
FORMS = {
    "original": (("0-originally-extracted",),),
    "lower_case": (("1-lowercase-and-token-and-remove-figure-index",),),
    "num_tk": (("2-normalized", "2-1-basic-num"),),
    "bracket_tk": (
        ("2-normalized", "2-2-advanced-euqation-bracket"),
        ("2-normalized", "2-2-advanced-equation-bracket"),
    ),
}


def open_scicap(config: DataConfig, skips: Skips) -> ImageFileSource:
    """Opens SciCap or FigCaps-HF.

    Args:
        config: `root` contains the folders of captions, figures and lists.
        skips: Counts what cannot be used.

    Raises:
        CaptionGANError: A required file or folder is missing; only all of `test` may be absent.
    """
    root, settings = str(config.root), config.scicap
    if (settings.text, settings.caption) == ("original", "first_sentence"):
        # Not divided here: many begin with "Figure 2.", and equations and "et al." have full stops.
        raise CaptionGANError(
            "data.scicap.caption: the release does not divide captions of the form 'original' into "
            "sentences; set data.scicap.caption to whole or data.scicap.text to another form."
        )
    subfigures = "Yes-Subfig" if settings.subfigures else "No-Subfig"
    lists = _find(_find(_find(root, LISTS), COLLECTIONS[settings.collection]), subfigures)
    figures = _find(root, f"SciCap-{subfigures}-Img", f"{subfigures}-Img")
    records = _find(root, "SciCap-Caption-All", "Caption-All")

    image_files: dict[str, list[ImageFile]] = {}
    records_of: dict[str, str] = {}  # Folder of records by folder of figures.
    fingerprint: list[Any] = [root, dataclasses.asdict(settings)]
    present = {name for part in (lists, figures, records) for name in filesystem.listing(part)}
    for split in SPLITS:
        spellings = (split, split.capitalize())
        if split == "test" and present.isdisjoint(spellings):
            continue
        path = filesystem.join(_find(lists, *spellings), "file_idx.json")
        folder = _find(figures, *spellings)
        records_of[folder] = _find(records, *spellings)
        image_files[split] = [
            ImageFile(name, filesystem.join(folder, name))
            for name in _names(path, skips, config.encoding)
        ]
        # Includes the folders, because figures that are missing now may be added later.
        fingerprint += map(filesystem.modified, (path, folder, records_of[folder]))

    def read(file: ImageFile) -> Example:
        folder, name = os.path.split(file.path)
        path = filesystem.join(records_of[folder], name.removesuffix(".png") + ".json")
        try:
            text = text_files.decode(filesystem.read_bytes(path), path, config.encoding)
            record = json.loads(text)
        except FileNotFoundError:
            raise SkipError("figures have no record") from None
        except CaptionGANError:
            raise SkipError("figures have a record that is not UTF-8 (see data.encoding)") from None
        except (ValueError, RecursionError):
            raise SkipError("figures have a record that is not JSON") from None
        example = read_image(dataclasses.replace(file, captions=(_caption(record, settings),)))
        words = record.get("Img-text")
        words = [word for word in words if isinstance(word, str)] if isinstance(words, list) else []
        return dataclasses.replace(example, image_text=" ".join(words))

    return ImageFileSource(image_files, fingerprint, skips, root, read)


def _find(folder: str, *names: str) -> str:
    """The path of the first of these names that exists in a folder; an error if none does."""
    present = filesystem.listing(folder)
    for name in names:
        if name in present:
            return filesystem.join(folder, name)
    found = textwrap.shorten(", ".join(present), 100, placeholder=" ...") or "nothing"
    raise CaptionGANError(
        f"{filesystem.join(folder, names[0])} is missing, {folder} holds {found}; expected SciCap "
        "as released: SciCap-Caption-All/, SciCap-No-Subfig-Img/ or SciCap-Yes-Subfig-Img/, and "
        f"{LISTS}/, each with train, val and test."
    )


def _names(path: str, skips: Skips, encoding: str) -> list[str]:
    """File names of figures in one of the release's lists."""
    expected = "a JSON list of one or more file names of figures, e.g. 1001.0025v1-Figure2-1.png"
    try:
        names = json.loads(text_files.read_text(path, expected, encoding))
    except (ValueError, RecursionError):
        names = None
    usable = [name for name in names if _is_file_name(name)] if isinstance(names, list) else []
    if not usable:
        raise CaptionGANError(f"{path} is not {expected}; unpack the release again.")
    for number, name in enumerate(names, start=1):
        if not _is_file_name(name):
            skips.add(
                f"entries of {os.path.basename(path)} are no file names",
                f"number {number} ({shown(name)})",
            )
    return [name.removesuffix(".png") + ".png" for name in usable]


def _is_file_name(name: Any) -> bool:
    return isinstance(name, str) and bool(name.strip()) and "/" not in name


def _caption(record: Any, settings: SciCapConfig) -> str:
    """The caption of a record in the form that the settings name."""
    part = ("sentence", 0) if settings.caption == "first_sentence" else ("caption",)
    for form in FORMS[settings.text]:
        try:
            keys = form if settings.text == "original" else (*form, *part)
            caption = functools.reduce(operator.getitem, keys, record)
        except (LookupError, TypeError):
            continue
        if isinstance(caption, str) and caption.strip():
            return caption
    raise SkipError(f"figures have no caption of the form {settings.text}")
