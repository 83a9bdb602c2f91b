"""The types of settings that are paths.

A run is used from other folders than the one in which it was started, so its settings keep
absolute paths.
"""

import dataclasses
import os
from typing import TYPE_CHECKING, Any, TypeVar

from jsonargparse.typing import register_type

from caption_gan.storage.paths import resolve

DEFAULT_CACHE = "~/.cache/caption_gan"

Settings = TypeVar("Settings")


class _UserPath(str):
    """A path on disk, or with a scheme such as `gs://`."""

    def absolute(self) -> str:
        """Returns the path as seen from any folder."""
        return resolve(self)


class _PathOrName(_UserPath):
    """A path if there is one; else a name, such as that of a data set on a hub."""

    def absolute(self) -> str:
        """Returns an existing path as seen from any folder, and a name as it is."""
        return resolve(self) if os.path.exists(resolve(self)) else str(self)


class _CachePath(_UserPath):
    """A folder of files that can be made again."""

    def absolute(self) -> str:
        """Returns the path as seen from any folder; the default is below each user's home."""
        path = resolve(self)
        return DEFAULT_CACHE if path == resolve(DEFAULT_CACHE) else path


def _parse(kind: type[_UserPath], value: object) -> _UserPath:
    if not isinstance(value, str):
        raise ValueError(f"expected a path, in quotes if it is a number; got {value!r}")
    if not value.strip():
        raise ValueError("expected a path; got an empty text")
    return kind(value)


for _kind in (_UserPath, _PathOrName, _CachePath):
    register_type(_kind, str, lambda value, kind=_kind: _parse(kind, value))

if TYPE_CHECKING:
    UserPath = str
    PathOrName = str
    CachePath = str
else:
    UserPath, PathOrName, CachePath = _UserPath, _PathOrName, _CachePath


def with_absolute_paths(settings: Settings) -> Settings:
    """Returns settings, a dataclass or a value of one, that mean the same in any folder."""
    value: Any = settings
    if isinstance(value, _UserPath):
        return value.absolute()  # type: ignore[return-value]
    if isinstance(value, list):
        return [with_absolute_paths(item) for item in value]  # type: ignore[return-value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [field.name for field in dataclasses.fields(value)]
        absolute = {name: with_absolute_paths(getattr(value, name)) for name in names}
        return dataclasses.replace(value, **absolute)  # type: ignore[return-value]
    return settings
