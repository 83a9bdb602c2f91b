"""Images of data sets that are opened with the library `datasets`: their ids, rows and splits."""

import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from caption_gan.config.data import DataConfig
from caption_gan.data.skips import Skips
from caption_gan.data.sources.hugging_face_rows import Columns
from caption_gan.data.sources.image_files import image_name
from caption_gan.data.sources.split_columns import Row, divide, may_say_splits, split_folder
from caption_gan.data.sources.splits import SPLITS, assign_held_out
from caption_gan.errors import CaptionGANError

FIRST_ROWS = 100  # Read of columns that are read whole only if these rows ask for it.
_PLAIN = ("string", "large_string", "int", "uint", "bool")

NumberedIds = list[tuple[int, str | None]]
"""Rows with the ids of their images; None stands for the split and the row."""


def images_of_splits(
    root: str, tables: Mapping[str, Any], columns: Columns, config: DataConfig, skips: Skips
) -> dict[str, dict[str, list[int]]]:
    """Row numbers by image id, for each split.

    Args:
        root: Name or path of the data set.
        tables: Dataset of `datasets` for each split; a single one is `train`.
        columns: Columns of all tables.
        config: Names the column of splits, which may divide a single table, and the share that is
            held out if there is no split for validation.
        skips: Counts rows that cannot be used.

    Raises:
        CaptionGANError: The column of splits does not exist, or names no training split.
    """
    rows = _rows(root, tables, columns, skips)
    if cells := _split_cells(root, tables, columns, config.split_column):
        rows = _divide(root, rows["train"], cells, config.split_column, skips)
    images: dict[str, dict[str, list[int]]] = {split: defaultdict(list) for split in rows}
    for split, of_split in rows.items():
        for row, image_id in of_split:
            images[split][f"{split}-{row:06d}" if image_id is None else image_id].append(row)
    return images if "val" in images else _hold_out(images, config.held_out)


def _split_cells(
    root: str, tables: Mapping[str, Any], columns: Columns, named: str | None
) -> dict[str, list[Any]]:
    """The cells of those columns of a single table that may say the splits."""
    table = tables["train"]
    if len(tables) > 1:
        if named is not None:
            raise CaptionGANError(
                f"data.split_column is {named!r}, but {root} has the splits {', '.join(tables)}; "
                "omit it."
            )
        return {}
    others = (columns.image, columns.image_id, *columns.captions)
    plain = [
        name
        for name, feature in table.features.items()
        if getattr(feature, "dtype", "").startswith(_PLAIN) and name not in others
    ]
    if named is not None and named not in plain:
        raise CaptionGANError(
            f"data.split_column: {root} has no column {named!r} that may say splits; found "
            f"{', '.join(plain) or 'none'}."
        )
    first = read_cells(table, plain, FIRST_ROWS)
    cells = read_cells(table, [n for n in plain if n == named or may_say_splits(n, first[n])])
    if not cells and getattr(table.features[columns.image], "dtype", "") in (
        "string",
        "large_string",
    ):
        paths = read_cells(table, [columns.image])[columns.image]
        folders = [split_folder(image_name(path or "")) for path in paths]
        if all(folders):
            cells[f"{columns.image} (folders)"] = folders
    return cells


def read_cells(
    table: Any, columns: Sequence[str], count: int | None = None
) -> dict[str, list[Any]]:
    """The values of columns, of all rows or the first ones; classes by their names."""
    import datasets

    if not columns:
        return {}
    table = table.select_columns(list(columns))
    if hasattr(table, "select"):
        selected = table.with_format("arrow")[:count]
        cells = {name: selected.column(name).to_pylist() for name in columns}
    else:
        rows = list(table if count is None else table.take(count))
        cells = {name: [row[name] for row in rows] for name in columns}
    for name in columns:
        if isinstance(feature := table.features[name], datasets.ClassLabel):
            names = feature.names
            cells[name] = [
                names[cell] if isinstance(cell, int) and cell >= 0 else None for cell in cells[name]
            ]
    return cells


def _rows(
    root: str, tables: Mapping[str, Any], columns: Columns, skips: Skips
) -> dict[str, NumberedIds]:
    """Row numbers of each split, with the ids of their images; None for the split and the row.

    The id is that in `id_column`; or the name of the image's file if no other image has it; or its
    path below the folder of all images if no other has that. Rows with the same path to a file are
    one image; where images are in the table, the path may lack its folder.
    """
    ids: Mapping[str, Sequence[Any]]
    if (column := columns.image_id) is not None:
        ids = {split: read_cells(table, [column])[column] for split, table in tables.items()}
        for split, of_split in ids.items():
            for row, image_id in enumerate(of_split):
                if image_id is None:
                    skips.add(f"rows have no {column}", f"row {row} of {split}")
        return {
            split: [(row, str(name)) for row, name in enumerate(of_split) if name is not None]
            for split, of_split in ids.items()
        }
    found = {split: _paths(root, table, columns.image) for split, table in tables.items()}
    paths = {split: of_split for split, (of_split, _) in found.items()}
    are_files = all(are_files for _, are_files in found.values())
    ids = _names(paths, are_files) or {split: [None] * len(of) for split, of in paths.items()}
    return {split: list(enumerate(of_split)) for split, of_split in ids.items()}


def _divide(
    root: str,
    rows: NumberedIds,
    cells: Mapping[str, Sequence[Any]],
    named: str | None,
    skips: Skips,
) -> dict[str, NumberedIds]:
    """The rows of a single table by the splits that one of these columns says."""
    table = [
        Row(
            image_id or str(row),
            f"row {row}",
            # A streamed data set may have fewer rows than it says.
            {name: of[row] if row < len(of) else None for name, of in cells.items()},
        )
        for row, image_id in rows
    ]
    numbered = dict(zip((row.place for row in table), rows, strict=True))
    used, split_of = divide(table, (), named, root, skips)
    divided: dict[str, NumberedIds] = defaultdict(list)
    for row in used:
        divided[split_of[row.image]].append(numbered[row.place])
    if "train" not in divided:
        raise CaptionGANError(
            f"data.root: {root} has no row of the split train; found {', '.join(divided)}."
        )
    return {split: divided[split] for split in SPLITS if split in divided}


def _names(
    paths: Mapping[str, Sequence[str | None]], are_files: bool
) -> dict[str, list[str]] | None:
    """Names of images that tell them apart, for each split; None if there are none.

    Args:
        paths: Path of the image of each row.
        are_files: Whether images are read from these paths, so that equal paths are one image.
    """
    every = [path for of_split in paths.values() for path in of_split]
    if not every or not all(every):
        return None
    names = {
        split: [image_name(path or "").lstrip("/") for path in of_split]
        for split, of_split in paths.items()
    }
    full = [name for of_split in names.values() for name in of_split]
    images = len(set(full) if are_files else full)
    below = len(os.path.commonpath(map(os.path.dirname, full)))
    for short in (os.path.basename, lambda name: name[below:].lstrip("/")):
        ids = {split: list(map(short, of_split)) for split, of_split in names.items()}
        if len({name for of_split in ids.values() for name in of_split}) == images:
            return ids
    return None


def _paths(root: str, table: Any, column: str) -> tuple[list[str | None], bool]:
    """Returns the path of each row's image, and whether images are read from there.

    A path is None if it is not known without reading the image.
    """
    if not hasattr(table, "select"):
        info = (table.info.splits or {}).get(str(table.split))
        if info is None or not info.num_examples:
            raise CaptionGANError(
                f"data.hugging_face.streaming: {root} does not say how many rows its split "
                f"{table.split} has; set streaming to false."
            )
        return [None] * info.num_examples, False
    images = table.select_columns([column]).with_format("arrow")[:].flatten()
    path = f"{column}.path" if f"{column}.path" in images.column_names else column
    paths = images.column(path)
    if paths.type not in ("string", "large_string"):
        return [None] * len(paths), False
    content = f"{column}.bytes"
    has_content = content in images.column_names and images.column(content).null_count < len(paths)
    return paths.to_pylist(), not has_content


def _hold_out(
    rows: Mapping[str, dict[str, list[int]]], share: float
) -> dict[str, dict[str, list[int]]]:
    """Moves a share of the training images to each split that does not exist."""
    splits: dict[str, dict[str, list[int]]] = {split: {} for split in SPLITS}
    splits.update({split: images for split, images in rows.items() if split != "train"})
    split_of = assign_held_out(rows["train"], share, set(rows) - {"train"})
    for image_id, rows_of_image in rows["train"].items():
        splits[split_of[image_id]][image_id] = rows_of_image
    return splits
