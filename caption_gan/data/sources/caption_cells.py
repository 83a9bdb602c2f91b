"""Captions in the cells of tables: texts, lists, and lists that another program wrote as text.

A table with lists becomes texts where it is saved as CSV, such as `['a dog', 'a cat']` (Python),
`["a dog", "a cat"]` (JSON) or `['a dog' 'a cat']` (NumPy).
"""

import ast
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from caption_gan.data.skips import Skips, shown

CaptionReader = Callable[[Any], Iterator[Any]]
"""Yields the captions in a cell; values that are not texts are left to the caller to count."""

CAPTION_KEYS = ("raw", "caption", "text")  # Keys of the text if captions are records.
_TEXT = r"""u?(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")"""
_ITEM = rf"(?:{_TEXT}|np\.str_\({_TEXT}\)|None|nan)"  # NumPy 2 prints its texts as np.str_('a').
_ITEMS = rf"\s*(?:{_ITEM}(?:\s*,\s*{_ITEM})*\s*,?|{_ITEM}(?:\s+{_ITEM})*)?\s*"
_LIST = re.compile(
    rf"\s*(?:\[{_ITEMS}\]|\({_ITEMS}\)|array\(\[{_ITEMS}\](?:,\s*dtype=[^)]*)?\))\s*", re.DOTALL
)
LIST_BEGINS = r"^\s*(?:array\()?[\[(]"
_LIKELY = re.compile(rf"{LIST_BEGINS}\s*(?:np\.str_\()?u?['\"]")


def captions_of(cell: Any) -> Iterator[Any]:
    """Yields the captions in a cell: a text, a record, or a list of these."""
    if isinstance(cell, Mapping) and (keys := [key for key in CAPTION_KEYS if key in cell]):
        yield from captions_of(cell[keys[0]])
    elif isinstance(cell, list):
        for item in cell:
            yield from captions_of(item)
    elif cell is not None:
        yield cell


def caption_reader(cells: Iterable[Any], column: str, skips: Skips) -> CaptionReader:
    """Returns a function that yields the captions in a cell of a column.

    Texts are parsed as lists only if all texts of the column are lists: a single caption may be in
    brackets.

    Args:
        cells: The cells of the column.
        column: Names the column in notes.
        skips: Receives a note if there are lists among the texts.
    """
    captions = (caption for cell in cells for caption in captions_of(cell))
    texts = [caption for caption in captions if isinstance(caption, str) and caption.strip()]
    others = [text for text in texts if _parse_list(text) is None]
    if texts and not others:
        skips.notes.append(f"{len(texts)} texts of {column} are lists; each item is a caption")
        return _captions_of_text
    if likely := sum(_LIKELY.match(text) is not None for text in texts):
        skips.notes.append(
            f"warning: {likely} of {len(texts)} texts of {column} look like lists of captions, but "
            f"{len(others)} are no lists, such as {shown(others[0])}; each text is one caption"
        )
    return captions_of


def _captions_of_text(cell: Any) -> Iterator[Any]:
    for caption in captions_of(cell):
        is_list = isinstance(caption, str) and caption.strip()
        yield from captions_of(_parse_list(caption) if is_list else caption)


def _parse_list(text: str) -> list[Any] | None:
    """The captions in a list that is written as text; None if the text is something else."""
    if not re.match(LIST_BEGINS, text):
        return None
    try:
        content = json.loads(text)
    except ValueError:
        content = None
    if isinstance(content, list):
        captions = list(captions_of(content))
        return captions if all(isinstance(caption, str) for caption in captions) else None
    if not _LIST.fullmatch(text):
        return None
    # One item at a time: Python joins the texts of NumPy's list into one.
    try:
        return [ast.literal_eval(item) for item in re.findall(_TEXT, text, re.DOTALL)]
    except (ValueError, SyntaxError):
        return None
