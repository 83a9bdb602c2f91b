"""Columns that say to which split a row of a table belongs."""

import math
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from caption_gan.data.skips import Skips, shown
from caption_gan.data.sources.splits import SPLITS, split_name
from caption_gan.errors import CaptionGANError

_NAME = re.compile(r"(.*[ _-])?(splits?|set|subset|partition)", re.IGNORECASE)
_FLAG = re.compile(r"(is|in)[ _-]?(train|val|valid|test|dev).*", re.IGNORECASE)
_SUFFIX = re.compile(r"[ _-]?(set|split|\d{4})$", re.IGNORECASE)
_SHOWN = 5


class Row(NamedTuple):
    """A row of a table of images.

    Attributes:
        image: Identity of its image; an image may have several rows.
        place: Names the row in messages, e.g. `line 12`.
        cells: Values by column.
    """

    image: str
    place: str
    cells: Mapping[str, Any]


def divide(
    rows: Sequence[Row],
    others: Collection[str],
    named: str | None,
    table: str,
    skips: Skips,
    default: str = "train",
) -> tuple[list[Row], dict[str, str]]:
    """Divides the images of a table by the column that says the splits, if there is one.

    The values of a column whose name suggests it must be names of splits, or one of them `train`.
    Any other column must have no values but names of splits, and two of them. If no column says the
    splits, folders called `train`, `val` and `test` do if all images are in one.

    Args:
        rows: The rows.
        others: Columns that do not say splits.
        named: `data.split_column`.
        table: Names the table in messages.
        skips: Counts rows of unknown splits, and rows whose image is in another split. Receives a
            note on the column, or on a column that seems to say splits but does not.
        default: Split of rows without a value.

    Returns:
        The rows that can be used, and the split of each image.

    Raises:
        CaptionGANError: The named column does not exist or does not name splits; or several columns
            may be meant.
    """
    names = dict.fromkeys(name for row in rows for name in row.cells if name not in others)
    texts = {name: dict.fromkeys(_text(row.cells.get(name)) for row in rows) for name in names}
    for values in texts.values():
        values.pop("", None)
    column = _find(texts, named, table, skips)
    folder_of = {} if column else _split_folders(rows)
    used, split_of, counts = [], dict[str, str](), Counter[str]()
    for row in rows:
        text = _text(row.cells.get(column)) if column else folder_of.get(row.image, "")
        split = split_of_value(text) if text else default
        if split is None:
            skips.add(f"rows of {table} have an unknown split {shown(text)}", row.place)
        elif split_of.get(row.image, split) != split:
            skips.add(f"rows of {table} put their image into a second split", row.place)
        else:
            if row.image not in split_of:
                name = text or "without a value"
                counts[name if name == split else f"{name} ({split})"] += 1
            split_of[row.image] = split
            used.append(row)
    if column or folder_of:
        found = ", ".join(f"{count} {text}" for text, count in counts.items()) or "none"
        what = f"the column {column} of {table} says" if column else f"folders in {table} say"
        skips.notes.append(f"{what} the splits of images: {found}")
    return used, split_of


def may_say_splits(column: str, values: Iterable[Any]) -> bool:
    """Whether a column may say the splits or seem to, given the values of a few rows."""
    texts = filter(None, map(_text, values))
    return bool(_NAME.fullmatch(column) or _FLAG.fullmatch(column)) or all(
        map(split_of_value, texts)
    )


def split_folder(path: str) -> str:
    """The innermost folder of a path that is called like a split; empty if there is none."""
    return next(filter(split_of_value, reversed(path.split("/")[:-1])), "")


def split_of_value(value: str) -> str | None:
    """As `split_name`, also for `train2014` and `test_set`; `restval` (Karpathy) is `train`."""
    return "train" if value.lower() == "restval" else split_name(_SUFFIX.sub("", value))


def _find(
    texts: Mapping[str, Collection[str]], named: str | None, table: str, skips: Skips
) -> str | None:
    """The column that says the splits, given the distinct texts of columns; None if none does."""
    if named is not None:
        if named not in texts:
            raise CaptionGANError(
                f"data.split_column: {table} has no column {named!r} that may say splits; found "
                f"{', '.join(texts) or 'none'}."
            )
        if not any(map(split_of_value, texts[named])):
            raise CaptionGANError(
                f"data.split_column: the column {named} of {table} has {_some(texts[named])}; "
                f"expected names of splits: {', '.join(SPLITS)}."
            )
        return named
    by_name, by_values, warnings = [], [], []
    for column, values in texts.items():
        splits = set(map(split_of_value, values))
        suggests, all_known = _NAME.fullmatch(column), None not in splits
        says_train = "train" in splits or (column.lower() == "split" and splits != {None})
        if suggests and values and (says_train or all_known):
            by_name.append(column)
        elif all_known and len(splits) > 1:
            by_values.append(column)
        elif values and ((suggests and len(values) <= _SHOWN) or _FLAG.fullmatch(column)):
            warnings.append(
                f"warning: the column {column} of {table} seems to say the splits, but has "
                f"{_some(values)}; it is not used. Write {', '.join(SPLITS)} into a column split "
                "to keep test images out of training"
            )
    found = [name for name in by_name if name.lower() == "split"] or by_name or by_values
    if len(found) > 1:
        raise CaptionGANError(
            f"{table} has several columns that may say the splits: {', '.join(found)}; set "
            "data.split_column to one of them."
        )
    if found:
        return found[0]
    skips.notes += warnings
    return None


def _split_folders(rows: Sequence[Row]) -> dict[str, str]:
    """Returns each image's folder with a split's name; empty unless all have one of several."""
    folders = {row.image: split_folder(row.image) for row in rows}
    splits = set(map(split_of_value, folders.values()))
    return folders if len(splits) > 1 and None not in splits else {}


def _text(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return str(value).strip()


def _some(texts: Collection[str]) -> str:
    more = ", ..." if len(texts) > _SHOWN else ""
    return f"the values {', '.join(list(texts)[:_SHOWN])}{more}" if texts else "no values"
