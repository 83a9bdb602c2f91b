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
        for folder in sorted(entry for entry in base.iterdir() if entry.is_dir()):
            version = parse_version(folder.name)
            if version in folders:
                warnings.append(f"{folders[version]} is ignored: {folder} has the same version")
            if version is not None:
                folders[version] = folder
    except OSError as error:
        warnings.append(f"{base} cannot be read: {error.strerror}")
    if policy.WhichOneof("policy_choice") == "specific":
        for version in sorted(set(policy.specific.versions) - set(folders)):
            warnings.append(f"{base} has no version {version}, which the version policy names")
    return AspiredVersions(
        {version: folders[version] for version in select_versions(folders, policy)}, warnings
    )


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
