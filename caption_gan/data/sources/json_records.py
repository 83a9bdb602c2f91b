"""Reads JSON files of lists of records; records that cannot be used are skipped and counted."""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from caption_gan.data.skips import Skips, shown
from caption_gan.data.sources.caption_cells import captions_of
from caption_gan.errors import CaptionGANError
from caption_gan.storage import text_files


class Value(NamedTuple):
    """What is expected of a record's key.

    Attributes:
        expected: Describes it, in messages.
        read: Returns the value as it is used; None if it cannot be used.
    """

    expected: str
    read: Callable[[Any], Any]


Schema = Mapping[str, Value]


def _id(value: Any) -> str | None:
    """The numbers 9 and 9.0, which pandas writes, and the text "9" are one id."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return value if isinstance(value, str) else None


def _captions(value: Any) -> Any:
    captions = list(captions_of(value))
    return value if captions and all(isinstance(text, str) for text in captions) else None


ID = Value("that is an integer or a text", _id)
NAME = Value(
    "that is a text", lambda value: value if isinstance(value, str) and value.strip() else None
)
CAPTIONS = Value("that is a text or a list of texts", _captions)
LIST = Value("that is a list", lambda value: value if isinstance(value, list) else None)


def read_records(
    path: str, schemas: Mapping[str, Schema], skips: Skips, encoding: str | None
) -> list[list[dict[str, Any]]]:
    """Reads lists of records from a JSON object.

    Args:
        path: The file.
        schemas: Keys of the lists, each with the schema of its records.
        skips: Counts records that do not match their schema.
        encoding: As in `text_files.read_text`.

    Returns:
        The usable records of each list, in the order of `schemas`.

    Raises:
        CaptionGANError: The file is missing, is not JSON, or lacks a list; or a list has records,
            none of which can be used.
    """
    text = text_files.read_text(path, f"JSON with the keys {', '.join(schemas)}", encoding)
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CaptionGANError(
            f"{path} is not JSON, or is truncated: {error}; download the file again."
        ) from None
    lists = content if isinstance(content, dict) else {}
    for key in schemas:
        if not isinstance(lists.get(key), list):
            found = f"as {key!r} {shown(lists[key])}" if key in lists else _found(content, key)
            raise CaptionGANError(
                f"{path}: expected a JSON object with the lists {', '.join(schemas)}; found "
                f"{found}."
            )
    return [usable_records(path, key, lists[key], schemas[key], skips) for key in schemas]


def read_array(text: str, path: str) -> list[Any] | None:
    """The elements of a text that is one JSON array; None if it is JSON Lines or something else.

    NaN, which Python writes for cells that pandas left empty, becomes None.

    Raises:
        CaptionGANError: The text begins as an array but is no JSON.
    """
    if not text.lstrip().startswith("["):
        return None
    try:
        return json.loads(text, parse_constant=lambda _: None)
    except (ValueError, RecursionError) as error:
        first_line = text_files.lines(text.lstrip())[0]
        try:
            json.loads(first_line)  # JSON Lines of arrays.
        except (ValueError, RecursionError):
            raise CaptionGANError(
                f"{path} is not JSON, or is truncated: {error}; expected JSON Lines or an array."
            ) from None
        return None


def usable_records(
    path: str, name: str, records: Sequence[Any], schema: Schema, skips: Skips
) -> list[dict[str, Any]]:
    """The records that match a schema, with their values as they are used.

    Args:
        path: The file, for messages.
        name: What the records are, for messages.
        records: Content of the file.
        schema: Required keys.
        skips: Counts the other records.

    Raises:
        CaptionGANError: There are records, but none matches the schema.
    """
    usable = []
    problem = ""
    for number, record in enumerate(records, start=1):
        values, key = _read(record, schema)
        if key is None:
            usable.append({**record, **values})
            continue
        found = _found(record, key)
        skips.add(
            f"{name} of {os.path.basename(path)} have no {key} {schema[key].expected}",
            f"number {number} ({found})",
        )
        problem = problem or f"{key!r} is no value {schema[key].expected}: found {found}"
    if problem and not usable:
        raise CaptionGANError(f"{path}: none of the {name} can be used; in number 1 {problem}.")
    return usable


def _found(record: Any, key: str) -> str:
    if not isinstance(record, dict):
        return shown(record)
    return shown(record[key]) if key in record else f"the keys {', '.join(record) or '(none)'}"


def _read(record: Any, schema: Schema) -> tuple[dict[str, Any], str | None]:
    """The values of a record, and the first key without a usable value."""
    values: dict[str, Any] = {}
    for key, value in schema.items():
        values[key] = value.read(record.get(key)) if isinstance(record, dict) else None
        if values[key] is None:
            return values, key
    return values, None
