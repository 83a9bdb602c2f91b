"""Data sets on the Hugging Face Hub or in its formats on disk, read with the library `datasets`.

On disk, a data set is a file (Parquet, CSV, JSON Lines), a folder written by `save_to_disk`, or any
other folder that `load_dataset` accepts, e.g. of Parquet files. Rows stay in memory-mapped files,
images encoded.
"""

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

from caption_gan.config.data import DataConfig, HuggingFaceConfig
from caption_gan.data.skips import Skips
from caption_gan.data.sources.caption_cells import (
    LIST_BEGINS,
    CaptionReader,
    caption_reader,
    captions_of,
)
from caption_gan.data.sources.hugging_face_files import open_builder
from caption_gan.data.sources.hugging_face_images import (
    FIRST_ROWS,
    images_of_splits,
    read_cells,
)
from caption_gan.data.sources.hugging_face_rows import Columns, HuggingFaceSource, one_line_errors
from caption_gan.data.sources.splits import split_name
from caption_gan.errors import CaptionGANError

CAPTION_COLUMNS = ("caption", "captions", "text", "sentence", "sentences")
_SAVED = ("dataset_dict.json", "state.json")  # Files that `save_to_disk` writes.


def open_hugging_face(config: DataConfig, skips: Skips) -> HuggingFaceSource:
    """Opens a data set on the Hub or on disk.

    Args:
        config: `root` is a name on the Hub, a folder or a file. A column of splits divides a single
            table. If there is no split for validation, `held_out` divides the training split or the
            only split.
        skips: Counts what cannot be used.

    Raises:
        CaptionGANError: The data set does not exist, or a required column or split is missing.
    """
    root, settings = str(config.root), config.hugging_face
    if settings.streaming and settings.id_column:
        raise CaptionGANError(
            "data.hugging_face.streaming: a data set with data.hugging_face.id_column cannot be "
            "streamed, because the rows of an image may be far apart; set streaming to false."
        )
    with one_line_errors(root):
        tables, version = _load(root, settings, config.encoding)
        tables = _by_split(root, tables, skips)
        columns = _columns(root, next(iter(tables.values())).features, settings)
        images = images_of_splits(root, tables, columns, config, skips)
        readers = {name: _caption_reader(tables, name, skips) for name in columns.captions}
        tables = {split: _undecoded(table, columns) for split, table in tables.items()}
    tables = {split: tables.get(split, tables["train"]) for split in images}
    how_to_divide = [config.held_out, config.split_column]
    fingerprint = [root, version, dataclasses.asdict(settings), how_to_divide]
    return HuggingFaceSource(root, tables, columns, readers, images, fingerprint, skips)


def _load(root: str, settings: HuggingFaceConfig, encoding: str) -> tuple[Mapping[str, Any], Any]:
    """Opens the data set of this name: its tables by split, and a version of their content."""
    import datasets  # Imported here because it takes longer than opening other layouts.

    datasets.disable_progress_bars()  # The progress bars of downloads remain.
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)  # Errors are raised anyway.
    path = os.path.expanduser(root)
    if any(os.path.isfile(os.path.join(path, name)) for name in _SAVED):
        saved = datasets.load_from_disk(path)
        tables = {"train": saved} if isinstance(saved, datasets.Dataset) else saved
        return tables, [table._fingerprint for table in tables.values()]
    builder = open_builder(path, settings, encoding)
    version = [builder.hash, builder.config_id]
    if settings.streaming:
        return builder.as_streaming_dataset(), version
    builder.download_and_prepare()
    return builder.as_dataset(), version


def _by_split(root: str, tables: Mapping[str, Any], skips: Skips) -> dict[str, Any]:
    """The tables by `train`, `val` and `test`; a single table becomes `train`."""
    if len(tables) == 1:
        return {"train": next(iter(tables.values()))}
    splits: dict[str, Any] = {}
    for name, table in tables.items():
        split = split_name(name)
        if split is None or split in splits:
            skips.add("splits of the data set are not used", name)
        else:
            splits[split] = table
    if "train" not in splits:
        raise CaptionGANError(
            f"data.root: {root} has no split train; expected train, val and test, or a single "
            f"split; found {', '.join(tables)}."
        )
    return splits


def _columns(root: str, features: Mapping[str, Any] | None, settings: HuggingFaceConfig) -> Columns:
    """The columns that the settings name; by default those recognised by their type or name."""
    import datasets

    if features is None:
        raise CaptionGANError(
            f"data.hugging_face.streaming: {root} does not list its columns; set streaming to "
            "false."
        )
    for column in (settings.image_column, *settings.caption_columns, settings.id_column):
        if column is not None and column not in features:
            raise CaptionGANError(
                f"data.hugging_face: {root} has no column {column!r}; found {', '.join(features)}."
            )
    images = [
        name
        for name, kind in features.items()
        if isinstance(kind, datasets.Image) or (isinstance(kind, dict) and "bytes" in kind)
    ] or [name for name in features if name.lower() == "image"]
    if settings.image_column is not None:
        images = [settings.image_column]
    captions = (
        settings.caption_columns
        or [name for wanted in CAPTION_COLUMNS for name in features if name.lower() == wanted][:1]
    )
    for setting, is_clear, expected in (
        ("image_column", len(images) == 1, "exactly one column of images"),
        ("caption_columns", captions, f"a column named {' or '.join(CAPTION_COLUMNS)}"),
    ):
        if not is_clear:
            raise CaptionGANError(
                f"data.hugging_face.{setting} is not set, and {root} does not have {expected}; "
                f"choose from {', '.join(features)}."
            )
    return Columns(images[0], captions, settings.id_column)


def _undecoded(table: Any, columns: Columns) -> Any:
    """A table with only the columns that are read, its images as encoded bytes."""
    import datasets

    names = dict.fromkeys([columns.image, *columns.captions, columns.image_id or columns.image])
    table = table.select_columns(list(names))
    if isinstance(table.features[columns.image], datasets.Image):
        table = table.cast_column(columns.image, datasets.Image(decode=False))
    return table


def _caption_reader(tables: Mapping[str, Any], column: str, skips: Skips) -> CaptionReader:
    """Reads captions of a column; of a streamed data set only the first rows decide how."""
    texts: list[str] = []
    for table in tables.values():
        if hasattr(table, "select"):
            texts += _texts_of_lists(table, column)
        else:
            cells = read_cells(table, [column], FIRST_ROWS)[column]
            texts += [text for text in captions_of(cells) if isinstance(text, str)]
    return caption_reader(texts, f"the column {column}", skips)


def _texts_of_lists(table: Any, column: str) -> list[str]:
    """The texts of a column or of its lists; none if no text begins as a list does."""
    import pyarrow as pa
    import pyarrow.compute as pc

    texts = table.select_columns([column]).with_format("arrow")[:].column(0)
    while pa.types.is_list(texts.type) or pa.types.is_large_list(texts.type):
        texts = pc.list_flatten(texts)
    is_text = pa.types.is_string(texts.type) or pa.types.is_large_string(texts.type)
    if not is_text or not pc.any(pc.match_substring_regex(texts, LIST_BEGINS)).as_py():
        return []
    return texts.drop_null().to_pylist()
