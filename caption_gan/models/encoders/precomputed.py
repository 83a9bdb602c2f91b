"""Precomputed regions, such as the features of an object detector.

B batch, N images, R regions, D region depth.
"""

import math
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from caption_gan.config.models import EncoderConfig
from caption_gan.errors import CaptionGANError
from caption_gan.models.encoders.encoder import Encoder, Regions

FEATURES = "features.npy"


@keras.saving.register_keras_serializable(package="caption_gan")
class PrecomputedEncoder(Encoder):
    """Reads regions from files, where other encoders compute them from pixels; has no `call`.

    Args:
        folder: Local folder. Either a file per image with its name and the ending `.npy`, in the
            subfolder that the image is in or, if no other image has the name, in any folder: an
            array [R, D] with the same R and D for all images, or [D] for one region. Or
            `features.npy`, an array [N, R, D] or [N, D] of all images, as
            `caption_gan.data.sources.features` describes it.

    Raises:
        CaptionGANError: The folder or its files do not exist, or the first file holds something
            else.
    """

    needs_pixels = False

    def __init__(self, folder: str, **kwargs):
        super().__init__(**kwargs)
        self.folder = folder
        root = Path(folder).expanduser()
        features = sorted([*root.glob(FEATURES), *root.glob(f"*/{FEATURES}")])
        self.reader = _Rows(root, features) if features else _Files(root)
        if not self.reader.paths:
            raise CaptionGANError(
                f"encoder.regions: {folder} holds no regions; expected a local folder with one "
                f".npy file per image, with the image's name, or {FEATURES} in it or its folders: "
                "--encoder.regions FOLDER."
            )
        count, depth = _checked(*self.reader.first()).shape
        self.regions_shape = (count, depth)
        rows = math.isqrt(count)
        # The files do not say where regions lie in the image; most often they are a square grid.
        self.grid = (rows, rows) if rows**2 == count else (1, count)
        self.built = True

    @classmethod
    def from_settings(cls, config: EncoderConfig, load_weights: bool) -> "PrecomputedEncoder":
        """Builds the encoder; it has no weights."""
        return cls(config.regions or "", name="encoder")

    @property
    def cached_shape(self) -> tuple[int, ...]:
        """(R, D): regions are stored as they are."""
        return self.regions_shape

    @property
    def cache_key(self) -> dict[str, Any]:
        """Names, sizes and times of the files."""
        root = self.reader.root
        files = [(str(path.relative_to(root)), path.stat()) for path in self.reader.paths]
        return {"regions": [(name, status.st_size, status.st_mtime_ns) for name, status in files]}

    def check_names(self, image_ids: Iterable[str]) -> None:
        """Checks that no file would be read for two images.

        Raises:
            CaptionGANError: A file's name fits several images.
        """
        image_of: dict[Path, str] = {}
        for image_id in image_ids:
            path = self.reader.path(image_id)
            if path is not None and image_of.setdefault(path, image_id) != image_id:
                raise CaptionGANError(
                    f"encoder.regions: {path} fits the images {image_of[path]} and {image_id}; "
                    f"name the files {image_of[path]}.npy and {image_id}.npy, in folders as the "
                    "images are."
                )

    def read(self, image_id: str) -> np.ndarray | None:
        """Reads the regions [R, D] of an image; None if the folder has none.

        Raises:
            CaptionGANError: The file holds something else.
        """
        found = self.reader.find(image_id)
        if found is None:
            return None
        regions = _checked(*found)
        if regions.shape != self.regions_shape:
            raise CaptionGANError(
                f"encoder.regions: {found[0]} holds {regions.shape}, other files of its folder "
                f"{self.regions_shape} numbers; compute as many regions for every image."
            )
        return regions

    def after_cache(self, cached: tf.Tensor) -> Regions:
        """Regions of stored features [B, R, D], unchanged."""
        return Regions(cached, grid=self.grid)

    def get_config(self):
        return {**super().get_config(), "folder": self.folder}


class _Files:
    """A file per image, with the image's name."""

    def __init__(self, root: Path):
        self.root = root
        self.paths = sorted(root.rglob("*.npy"))
        self.by_path: dict[str, Path] = {}
        self.by_name: dict[str, list[Path]] = defaultdict(list)
        for path in self.paths:
            # Image ids compose accents; file systems may not.
            relative = unicodedata.normalize("NFC", path.relative_to(root).as_posix())
            self.by_path[relative] = path
            self.by_name[PurePosixPath(relative).name].append(path)

    def first(self) -> tuple[str, np.ndarray]:
        """Returns where the first regions are stored, and these regions."""
        return str(self.paths[0]), _load(np.load, self.paths[0])

    def find(self, image_id: str) -> tuple[str, np.ndarray] | None:
        """Returns where the regions of an image are stored, and these regions; None if none are."""
        path = self.path(image_id)
        return (str(path), _load(np.load, path)) if path is not None else None

    def path(self, image_id: str) -> Path | None:
        """The file of an image; None if there is none, or several have the image's name."""
        *folders, name = image_id.split("/")
        names = [f"{name}.npy", f"{PurePosixPath(name).stem}.npy"]
        for start in range(len(folders) + 1):
            for candidate in ("/".join([*folders[start:], name]) for name in names):
                if candidate in self.by_path:
                    return self.by_path[candidate]
        if folders:
            return None
        paths = [path for name in names for path in self.by_name.get(name, [])]
        return paths[0] if len(paths) == 1 else None


class _Rows:
    """A row per image in memory-mapped arrays; image ids are the folder and the row number."""

    def __init__(self, root: Path, paths: Sequence[Path]):
        self.root = root
        self.paths = paths
        self.arrays: dict[str, np.ndarray] = {}
        for path in paths:
            array = _load(np.lib.format.open_memmap, path, mode="r")
            if array.ndim not in (2, 3) or not len(array):
                raise CaptionGANError(
                    f"encoder.regions: {path} must hold numbers [images, regions, depth] or "
                    f"[images, depth]; found shape {array.shape}."
                )
            self.arrays[path.parent.name if path.parent != root else ""] = array

    def first(self) -> tuple[str, np.ndarray]:
        """Returns where the first regions are stored, and these regions."""
        return str(self.paths[0]), next(iter(self.arrays.values()))[0]

    def path(self, image_id: str) -> None:
        """Returns None, because several images share a file."""

    def find(self, image_id: str) -> tuple[str, np.ndarray] | None:
        """Returns where the regions of an image are stored, and these regions; None if none are."""
        folder, _, number = image_id.rpartition("-")
        array = self.arrays.get(folder)
        if array is None or not number.isdecimal() or int(number) >= len(array):
            return None
        return f"row {int(number)} of {self.root / folder / FEATURES}", np.array(array[int(number)])


def _load(load: Callable[..., np.ndarray], path: Path, **options: Any) -> np.ndarray:
    try:
        return load(path, **options)
    except (OSError, ValueError) as error:
        raise CaptionGANError(f"encoder.regions: {path} cannot be read: {error}.") from error


def _checked(place: str, array: np.ndarray) -> np.ndarray:
    try:
        regions = np.atleast_2d(array).astype(np.float16)
    except (ValueError, TypeError) as error:
        raise CaptionGANError(f"encoder.regions: {place} cannot be read: {error}.") from error
    if regions.ndim != 2 or not np.isfinite(regions).all():
        raise CaptionGANError(
            f"encoder.regions: {place} must hold finite numbers [regions, depth] within float16; "
            f"found shape {regions.shape}."
        )
    return regions
