"""SciCap (Hsu et al., 2021) as it was released, and FigCaps-HF, whose tree has shorter names.

    SciCap-Caption-All/train/1001.0025v1-Figure2-1.json    a figure's record: its caption in 4 forms
    SciCap-No-Subfig-Img/train/1001.0025v1-Figure2-1.png   or SciCap-Yes-Subfig-Img/
    List-of-Files-for-Each-Experiments/First-Sentence/No-Subfig/train/file_idx.json

There are 400,000 records, so they are read with their figures and not when the set is opened.
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
from caption_gan.data.skips import SkipError, Skips
from caption_gan.data.sources.image_files import ImageFile, ImageFileSource, read_image
from caption_gan.data.sources.splits import SPLITS
from caption_gan.errors import CaptionGANError
from caption_gan.storage import filesystem

LISTS = "List-of-Files-for-Each-Experiments"
COLLECTIONS = {
    "first_sentence": "First-Sentence",
    "single_sentence": "Single-Sentence-Caption",
    "at_most_100_tokens": "Caption-No-More-Than-100-Tokens",
}
# Where a record holds a form of the caption. "euqation" is how the release spells it.
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
        config: `root` is the folder with the captions, the figures and the lists.
        skips: Counts what cannot be used.

    Raises:
        CaptionGANError: Something that must be there is not; only `test` may be absent as a whole.
    """
    root, settings = str(config.root), config.scicap
    if (settings.text, settings.caption) == ("original", "first_sentence"):
        # Nor is it cut here: many begin "Figure 2.", and equations and "et al." hold full stops.
        raise CaptionGANError(
            "data.scicap.caption: the release does not divide captions of the form 'original' into "
            "sentences; set data.scicap.caption to whole or data.scicap.text to another form."
        )
    subfigures = "Yes-Subfig" if settings.subfigures else "No-Subfig"
    lists = _below(_below(_below(root, LISTS), COLLECTIONS[settings.collection]), subfigures)
    figures = _below(root, f"SciCap-{subfigures}-Img", f"{subfigures}-Img")
    records = _below(root, "SciCap-Caption-All", "Caption-All")

    entries: dict[str, list[ImageFile]] = {}
    records_of: dict[str, str] = {}  # The folder of records of each folder of figures.
    fingerprint: list[Any] = [root, dataclasses.asdict(settings)]
    present = {name for part in (lists, figures, records) for name in filesystem.listing(part)}
    for split in SPLITS:
        spellings = (split, split.capitalize())
        if split == "test" and present.isdisjoint(spellings):
            continue
        path = filesystem.join(_below(lists, *spellings), "file_idx.json")
        folder = _below(figures, *spellings)
        records_of[folder] = _below(records, *spellings)
        entries[split] = [ImageFile(name, filesystem.join(folder, name)) for name in _names(path)]
        # Of the folders too: figures that were missing may be there the next time.
        fingerprint += map(filesystem.modified, (path, folder, records_of[folder]))

    def read(entry: ImageFile) -> Example:
        folder, name = os.path.split(entry.path)
        path = filesystem.join(records_of[folder], name.removesuffix(".png") + ".json")
        try:
            record = json.loads(filesystem.read_bytes(path))
        except FileNotFoundError:
            raise SkipError("figures have no record") from None
        except ValueError:
            raise SkipError("figures have a record that is not JSON") from None
        example = read_image(dataclasses.replace(entry, captions=(_caption(record, settings),)))
        words = record.get("Img-text")
        image_text = " ".join(map(str, words)) if isinstance(words, list) else ""
        return dataclasses.replace(example, image_text=image_text)

    return ImageFileSource(entries, fingerprint, skips, read)


def _below(folder: str, *names: str) -> str:
    """The path of what has one of these names in a folder."""
    there = filesystem.listing(folder)
    for name in names:
        if name in there:
            return filesystem.join(folder, name)
    found = textwrap.shorten(", ".join(there), 100, placeholder=" ...") or "nothing"
    raise CaptionGANError(
        f"{filesystem.join(folder, names[0])} is missing, {folder} holds {found}; expected SciCap "
        "as released: SciCap-Caption-All/, SciCap-No-Subfig-Img/ or SciCap-Yes-Subfig-Img/, and "
        f"{LISTS}/, each with train, val and test."
    )


def _names(path: str) -> list[str]:
    expected = "a JSON list of one or more names of figures, e.g. 1001.0025v1-Figure2-1.png"
    try:
        names = json.loads(filesystem.read_text(path, expected))
    except ValueError:
        names = None
    if not isinstance(names, list) or not names or not all(map(_is_file_name, names)):
        raise CaptionGANError(f"{path} is not {expected}; unpack the release again.")
    return [name.removesuffix(".png") + ".png" for name in names]


def _is_file_name(name: Any) -> bool:
    return isinstance(name, str) and "/" not in name


def _caption(record: Any, settings: SciCapConfig) -> str:
    part = ("sentence", 0) if settings.caption == "first_sentence" else ("caption",)
    for form in FORMS[settings.text]:
        try:
            place = form if settings.text == "original" else (*form, *part)
            caption = functools.reduce(operator.getitem, place, record)
        except (LookupError, TypeError):
            continue
        if isinstance(caption, str) and caption.strip():
            return caption
    raise SkipError(f"figures have no caption of the form {settings.text}")
