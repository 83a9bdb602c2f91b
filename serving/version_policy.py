"""Which versions of a model there are, and which of them a policy wants."""

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
    """Folders by version, newest first, and what the operator may have meant otherwise."""

    folders: dict[int, Path]
    warnings: list[str]


def aspired_versions(base: Path, policy: Policy) -> AspiredVersions:
    """Looks for versions: folders whose names are numbers, with or without zeros before them.

    Args:
        base: The model's folder; without it, or with an unreadable one, there are no versions.
        policy: Without a choice it is the latest version.
    """
    warnings: list[str] = []
    folders: dict[int, Path] = {}
    try:
        # In this order what has zeros comes first and gives way.
        for folder in sorted(entry for entry in base.iterdir() if entry.is_dir()):
            version = parse_version(folder.name)
            if version in folders:
                warnings.append(f"{folders[version]} is ignored: {folder} is that version, too")
            if version is not None:
                folders[version] = folder
    except OSError as error:
        warnings.append(f"{base} cannot be read: {error.strerror}")
    if policy.WhichOneof("policy_choice") == "specific":
        for version in sorted(set(policy.specific.versions) - set(folders)):
            warnings.append(f"{base} lacks version {version}, which its policy names")
    return AspiredVersions(
        {version: folders[version] for version in select_versions(folders, policy)}, warnings
    )


def parse_version(name: str) -> int | None:
    """The version that a folder of this name holds, if any: an int64, not negative."""
    version = int(name) if re.fullmatch("[0-9]+", name) else MAX_VERSION + 1
    return version if version <= MAX_VERSION else None


def select_versions(versions: Collection[int], policy: Policy) -> list[int]:
    """The versions among these that the policy wants, newest first."""
    newest_first = sorted(versions, reverse=True)
    choice = policy.WhichOneof("policy_choice")
    if choice == "all":
        return newest_first
    if choice == "specific":
        return [version for version in newest_first if version in policy.specific.versions]
    return newest_first[: max(policy.latest.num_versions, 1)]
