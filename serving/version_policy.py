"""Finds the versions of a model and selects those that its policy asks for."""

import re
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple, TypeAlias

from tensorflow_serving.config.file_system_storage_path_source_pb2 import (
    FileSystemStoragePathSourceConfig,
)

Policy: TypeAlias = FileSystemStoragePathSourceConfig.ServableVersionPolicy

MAX_VERSION = 2**63 - 1
MODEL_FILE = "saved_model.pb"
NAMES_SHOWN = 5


class AspiredVersions(NamedTuple):
    """Folders by version, newest first, and warnings for the operator."""

    folders: dict[int, Path]
    warnings: list[str]


def aspired_versions(base: Path, policy: Policy) -> AspiredVersions:
    """Returns the versions in a folder that the policy selects.

    A version is a folder whose name is a number; leading zeros are allowed.

    Args:
        base: The model's folder. If it is missing or unreadable, there are no versions.
        policy: Selects the latest version by default.
    """
    warnings: list[str] = []
    folders: dict[int, Path] = {}
    try:
        # Sorted, a name with leading zeros comes before, and yields to, one without.
        entries = sorted(base.iterdir())
        for folder in filter(Path.is_dir, entries):
            version = parse_version(folder.name)
            if version in folders:
                warnings.append(f"{folders[version]} is ignored: {folder} has the same version")
            if version is not None:
                folders[version] = folder
        if not folders:
            warnings.append(_why_no_version(base, entries))
    except OSError as error:
        warnings.append(f"{base} cannot be read: {error.strerror}")
    if policy.WhichOneof("policy_choice") == "specific":
        for version in sorted(set(policy.specific.versions) - set(folders)):
            warnings.append(f"{base} has no version {version}, which the version policy names")
    return AspiredVersions(
        {version: folders[version] for version in select_versions(folders, policy)}, warnings
    )


def _why_no_version(base: Path, entries: Collection[Path]) -> str:
    """What is wrong with a folder without versions, and what to do."""
    if MODEL_FILE in {entry.name for entry in entries}:
        if parse_version(base.name) is not None:
            return f"{base} is itself a version; give the folder that contains it: {base.parent}"
        return f"{base} is itself a SavedModel; move its files into {base / '1'}"
    folders = [entry for entry in entries if entry.is_dir()]
    for folder in folders:
        if any(
            parse_version(path.parent.name) is not None for path in folder.glob(f"*/{MODEL_FILE}")
        ):
            return f"{base} contains folders of versions; give one of them, such as {folder}"
    found = ", ".join(folder.name for folder in folders[:NAMES_SHOWN]) or "no folder"
    return f"{base}: names of version folders must be numbers, such as 1; found {found}"


def parse_version(name: str) -> int | None:
    """Returns the version that a folder's name stands for: a non-negative int64, or None."""
    version = int(name) if re.fullmatch("[0-9]+", name) else MAX_VERSION + 1
    return version if version <= MAX_VERSION else None


def select_versions(versions: Collection[int], policy: Policy) -> list[int]:
    """Returns the versions that the policy selects, newest first."""
    newest_first = sorted(versions, reverse=True)
    choice = policy.WhichOneof("policy_choice")
    if choice == "all":
        return newest_first
    if choice == "specific":
        return [version for version in newest_first if version in policy.specific.versions]
    return newest_first[: max(policy.latest.num_versions, 1)]
