"""Examples from the rows of a data set that is opened with the library `datasets`.

Rows stay in memory-mapped files or are streamed; images stay encoded.
"""

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import Any, NamedTuple

from caption_gan.data.example import Example
from caption_gan.data.skips import SkipError, Skips, shown
from caption_gan.data.sources.caption_cells import CaptionReader
from caption_gan.data.sources.image_files import Spellings
from caption_gan.errors import CaptionGANError


class Columns(NamedTuple):
    """Names of the columns that are read.

    Attributes:
        image: Column of the image.
        captions: Columns of captions.
        image_id: Column of the image's id, if there is one.
    """

    image: str
    captions: list[str]
    image_id: str | None


class HuggingFaceSource:
    """A `Source` that reads rows when they are needed.

    Args:
        root: Name or path of the data set.
        tables: Dataset of `datasets` for each split, streamed or not.
        columns: Columns of all tables.
        readers: Reader of each column of captions.
        rows: Row numbers by image id, for each split, in order.
        fingerprint: JSON-serializable value that changes whenever the examples may change.
        skips: Counts what cannot be used.
    """

    def __init__(
        self,
        root: str,
        tables: Mapping[str, Any],
        columns: Columns,
        readers: Mapping[str, CaptionReader],
        rows: Mapping[str, Mapping[str, list[int]]],
        fingerprint: Any,
        skips: Skips,
    ):
        self.root = root
        path = os.path.abspath(os.path.expanduser(root))
        self.spellings = Spellings(path if os.path.isdir(path) else os.path.dirname(path))
        self.tables = tables
        self.columns = columns
        self.readers = readers
        self.images = {split: list(rows_of.items()) for split, rows_of in rows.items()}
        self.fingerprint = fingerprint
        self.skips = skips

    @property
    def images_of_split(self) -> dict[str, int]:
        """Number of images of each split."""
        return {split: len(images) for split, images in self.images.items()}

    def image_ids(self) -> Iterator[str]:
        """Yields the id of each image."""
        return (image_id for images in self.images.values() for image_id, _ in images)

    def examples(self, split: str, positions: range) -> Iterator[Example]:
        """Yields the split's examples at these positions; those that cannot be used are skipped."""
        images = self.images[split][positions.start : positions.stop]
        texts = self.tables[split].select_columns(self.columns.captions)
        first_rows = self._read(split, [rows[0] for _, rows in images])
        for (image_id, rows), row in zip_longest(images, first_rows):
            if row is None:  # A streamed data set may have fewer rows than it says.
                self.skips.add("rows are announced but not there", image_id)
                continue
            rows_of_image = [row, *(texts[other] for other in rows[1:])]
            captions = [
                caption for of_row in rows_of_image for caption in self._captions(of_row, image_id)
            ]
            try:
                image = _image(row[self.columns.image], self.spellings)
                yield Example(image_id, image, tuple(captions))
            except SkipError as reason:
                self.skips.add(str(reason), image_id)

    def _captions(self, row: Mapping[str, Any], image_id: str) -> Iterator[str]:
        for column, captions_of in self.readers.items():
            for caption in captions_of(row[column]):
                if isinstance(caption, str):
                    yield caption
                else:
                    name = f"{image_id} ({shown(caption)})"
                    self.skips.add(f"captions of the column {column} are not texts", name)

    def _read(self, split: str, rows: Sequence[int]) -> Iterator[Mapping[str, Any]]:
        table = self.tables[split]
        with one_line_errors(self.root):
            if hasattr(table, "select"):
                yield from table.select(rows)
            elif rows:
                stream = table.skip(rows[0]).take(rows[-1] + 1 - rows[0])
                wanted = set(rows)
                yield from (row for number, row in enumerate(stream, rows[0]) if number in wanted)


def _image(cell: Any, spellings: Spellings) -> bytes:
    """The encoded image in a cell: bytes, a path, or a record of both.

    Args:
        cell: The cell.
        spellings: Finds files below the data set's folder, to which paths may be relative.
    """
    if isinstance(cell, Mapping):
        content, path = cell.get("bytes"), cell.get("path")
    else:
        content, path = (None, cell) if isinstance(cell, str) else (cell, None)
    if content is None and path:
        path = _local_path(path, spellings)

        import fsspec  # As in `datasets`: a path may be on the Hub or in an archive.

        with one_line_errors(path):
            try:
                with fsspec.open(path, "rb") as file:
                    content = file.read()
            except FileNotFoundError:
                raise SkipError("images are listed but not there") from None
    if not content or not isinstance(content, bytes):
        raise SkipError("rows have no image")
    return content


def _local_path(path: str, spellings: Spellings) -> str:
    """Returns the file below the data set's folder that a path names; without one, the path."""
    if "://" in path:
        return path
    below = os.path.join(spellings.root, path.replace("\\", "/"))
    if os.path.isfile(below):
        return below
    try:
        return spellings.find(below)
    except FileNotFoundError:
        return path


@contextlib.contextmanager
def one_line_errors(root: str) -> Iterator[None]:
    """Raises errors of `datasets`, which have many lines, as errors of one line."""
    from datasets.exceptions import DatasetGenerationError, DatasetsError

    try:
        yield
    except (OSError, ValueError, RuntimeError, ImportError, DatasetsError) as error:
        # The message of a DatasetGenerationError has no information; that of its cause has.
        reason = error.__cause__ if isinstance(error, DatasetGenerationError) else error
        message = " ".join(str(reason).split()).rstrip(".")
        raise CaptionGANError(
            f"data.root: {root} cannot be read: {message}; expected a name on the Hugging "
            "Face Hub, or a folder or file on disk that `datasets` can load."
        ) from error
