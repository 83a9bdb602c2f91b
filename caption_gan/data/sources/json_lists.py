"""JSON files with lists of records, checked: what COCO's and Karpathy's files have in common."""

import json
from collections.abc import Mapping
from typing import Any

from caption_gan.errors import CaptionGANError
from caption_gan.storage import filesystem


def read_lists(
    path: str, keys: Mapping[str, Mapping[str, type | tuple[type, ...]]]
) -> list[list[dict[str, Any]]]:
    """Lists of records in a JSON object.

    Args:
        path: The file.
        keys: Those of the lists, each with the keys and types that its records must have.

    Raises:
        CaptionGANError: The file is missing, is no JSON, or lacks one of the keys.
    """
    text = filesystem.read_text(path, f"JSON with the keys {', '.join(keys)}")
    try:
        content = json.loads(text)
    except ValueError as error:
        raise CaptionGANError(
            f"{path} is no JSON, or only a part of it: {error}; fetch the file again."
        ) from None
    if not isinstance(content, dict):
        content = {}
    if not all(isinstance(content.get(name), list) for name in keys):
        raise CaptionGANError(
            f"{path}: expected a JSON object with the lists {', '.join(keys)}; "
            f"found the keys {', '.join(content) or '(none)'}."
        )
    for name in keys:
        check_records(path, name, content[name], keys[name])
    return [content[name] for name in keys]


def check_records(
    path: str, name: str, records: list[Any], keys: Mapping[str, type | tuple[type, ...]]
) -> None:
    """Checks that records have the keys and types.

    Raises:
        CaptionGANError: One has not; `path` and `name` tell where.
    """
    for number, record in enumerate(records, start=1):
        record = record if isinstance(record, dict) else {}
        for key, types in keys.items():
            if not isinstance(record.get(key), types):
                raise CaptionGANError(
                    f"{path}: {name}, number {number}: {key!r} is missing or of the wrong type; "
                    f"found the keys {', '.join(record) or '(none)'}."
                )
