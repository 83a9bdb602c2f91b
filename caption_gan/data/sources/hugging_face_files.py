"""Opens data sets with the options of `datasets` that their files need.

The library takes names of image files such as `test.png` for names of splits, and cannot tell in
which encoding a table is.
"""

import os
import re
from typing import Any

from caption_gan.config.data import HuggingFaceConfig
from caption_gan.data.sources.splits import split_name
from caption_gan.data.sources.tables import separator_of
from caption_gan.errors import CaptionGANError
from caption_gan.storage import text_files

# Other files are Parquet.
_FORMATS = {".csv": "csv", ".json": "json", ".jsonl": "json", ".tsv": "csv"}
_TEXT_FORMATS = ("csv", "json", "text")
_METADATA = ("metadata.csv", "metadata.jsonl")


def open_builder(path: str, settings: HuggingFaceConfig, encoding: str) -> Any:
    """Opens a data set on the Hub or on disk that `save_to_disk` has not written.

    Args:
        path: A name on the Hub, a folder or a file.
        settings: Configuration and revision of a data set on the Hub.
        encoding: As in `text_files.read_text`, for tables on disk.

    Returns:
        A `datasets.DatasetBuilder`.

    Raises:
        CaptionGANError: A table on disk is not text in its encoding.
    """
    import datasets

    options: dict[str, Any] = {"name": settings.name, "revision": settings.revision}
    if os.path.isfile(path):
        file_format = _FORMATS.get(os.path.splitext(path)[1].lower(), "parquet")
        path, options = file_format, {"data_files": path}
    builder = datasets.load_dataset_builder(path, **options)
    files = [file for of_split in (builder.config.data_files or {}).values() for file in of_split]
    if not files or not os.path.isfile(files[0]):
        return builder
    if builder.name == "imagefolder":
        _refuse_metadata(path)
        if not any(_names_a_split(os.path.relpath(file, path)) for file in files):
            everything = os.path.join(os.path.abspath(path), "**")
            return datasets.load_dataset_builder(builder.name, data_files={"train": everything})
    if builder.name in _TEXT_FORMATS:
        encodings = {text_files.encoding_of(file, encoding) for file in files}
        if len(encodings) > 1:
            raise CaptionGANError(
                f"data.root: {path} has tables in several encodings: {', '.join(encodings)}; save "
                "all as UTF-8."
            )
        found = encodings.pop()
        changed = {} if found == text_files.UTF_8 else {"encoding": found}
        if builder.name == "csv":
            header = next(text_files.read_lines(files[0], "a table", encoding), "")
            if (separator := separator_of(header)) != ",":
                changed["sep"] = separator
        if changed:
            return datasets.load_dataset_builder(path, **options, **changed)
    return builder


def _names_a_split(path: str) -> bool:
    """Whether the library finds the name of a split in one of the folders of a path."""
    words = re.split(r"[-._ 0-9/]+", os.path.dirname(path))
    return any(split_name(word) for word in words)


def _refuse_metadata(folder: str) -> None:
    """Raises an error if the library cannot read the metadata of a folder of images."""
    for below, _, names in os.walk(folder):
        for path in (os.path.join(below, name) for name in _METADATA if name in names):
            found = text_files.encoding_of(path)
            if found not in (text_files.UTF_8, "utf-8-sig"):
                raise CaptionGANError(
                    f"{path} is {found}, and this layout reads metadata in UTF-8 only; save it as "
                    "UTF-8, or set data.source to folder."
                )
