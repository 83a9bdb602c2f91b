"""Reads JSON files of lists of records, and checks the records' keys and types."""

import json
from collections.abc import Mapping
from typing import Any

from caption_gan.errors import CaptionGANError
from caption_gan.storage import text_files

Schema = Mapping[str, type | tuple[type, ...]]
"""Required keys of a record with their types."""


def read_records(
    path: str, schemas: Mapping[str, Schema], encoding: str | None
) -> list[list[dict[str, Any]]]:
    """Reads lists of records from a JSON object.

    Args:
        path: The file.
        schemas: Keys of the lists, each with the schema of its records.
        encoding: As in `text_files.read_text`.

    Returns:
        The lists, in the order of `schemas`.

    Raises:
        CaptionGANError: The file is missing, is not JSON, or lacks a key.
    """
    text = text_files.read_text(path, f"JSON with the keys {', '.join(schemas)}", encoding)
    try:
        content = json.loads(text)
    except ValueError as error:
        raise CaptionGANError(
            f"{path} is not JSON, or is truncated: {error}; download the file again."
        ) from None
    if not isinstance(content, dict):
        content = {}
    if not all(isinstance(content.get(key), list) for key in schemas):
        raise CaptionGANError(
            f"{path}: expected a JSON object with the lists {', '.join(schemas)}; "
            f"found the keys {', '.join(content) or '(none)'}."
        )
    for key, schema in schemas.items():
        check_records(path, key, content[key], schema)
    return [content[key] for key in schemas]


def check_records(path: str, name: str, records: list[Any], schema: Schema) -> None:
    """Checks that records have the keys and types of a schema.

    Args:
        path: The file, for the error message.
        name: What the records are, for the error message.
        records: To be checked.
        schema: Required keys with their types.

    Raises:
        CaptionGANError: A record does not match the schema.
    """
    for number, record in enumerate(records, start=1):
        record = record if isinstance(record, dict) else {}
        for key, types in schema.items():
            if not isinstance(record.get(key), types):
                raise CaptionGANError(
                    f"{path}: {name}, number {number}: {key!r} is missing or of the wrong type; "
                    f"found the keys {', '.join(record) or '(none)'}."
                )
