"""Local folders as Hugging Face's transformers writes them: `config.json`, `model.safetensors`."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np

from caption_gan.errors import CaptionGANError

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"


class WeightsFolder:
    """Settings and weights of a network, read without PyTorch.

    Args:
        path: The folder.

    Attributes:
        config: The contents of `config.json`.

    Raises:
        CaptionGANError: A file is missing or damaged, or safetensors is not installed.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path).expanduser()
        self.config = self.json(CONFIG)
        try:
            from safetensors import SafetensorError, safe_open  # An optional dependency.
        except ImportError as error:
            raise CaptionGANError(
                f"{path} needs the package safetensors, which is not installed; run "
                "`pip install -e '.[hub]'`."
            ) from error
        files = [self.path / WEIGHTS]
        if (self.path / INDEX).is_file():
            files = [
                self.path / name for name in sorted(set(self.json(INDEX)["weight_map"].values()))
            ]
        self._file_of: dict[str, Any] = {}
        for file in files:
            try:
                opened = safe_open(file, framework="numpy")
            except (OSError, SafetensorError) as error:
                raise CaptionGANError(
                    f"{file} cannot be read: {error}; give a folder with {CONFIG} and {WEIGHTS}, "
                    "which `save_pretrained` writes."
                ) from error
            self._file_of |= dict.fromkeys(opened.keys(), opened)

    def json(self, name: str) -> Any:
        """Reads a JSON file of the folder.

        Raises:
            CaptionGANError: It is missing or damaged.
        """
        try:
            return json.loads((self.path / name).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise CaptionGANError(
                f"{self.path / name} cannot be read: {error}; give a folder as transformers' "
                "`save_pretrained` writes it."
            ) from error

    def has(self, name: str) -> bool:
        """Whether there is a file of this name."""
        return (self.path / name).is_file()

    def has_tensor(self, name: str) -> bool:
        """Whether there is an array of this name."""
        return name in self._file_of

    def tensor(self, name: str) -> np.ndarray:
        """Reads an array as float32.

        Raises:
            CaptionGANError: It is missing or of a type that NumPy does not have.
        """
        self._check_exists(name)
        try:
            return self._file_of[name].get_tensor(name).astype(np.float32)
        except TypeError as error:
            raise CaptionGANError(
                f"{self.path / WEIGHTS}: {name} cannot be read: {error}; save it as float32."
            ) from error

    def assign(
        self,
        variable: keras.Variable,
        name: str,
        arrange: Callable[[np.ndarray], np.ndarray] = lambda array: array,
    ) -> None:
        """Sets a variable.

        Args:
            variable: The variable.
            name: Of the array.
            arrange: Brings the array into the variable's order.

        Raises:
            CaptionGANError: The array has another shape.
        """
        array = arrange(self.tensor(name))
        self._check(name, array.shape, tuple(variable.shape))
        variable.assign(array)

    def check_shape(self, name: str, shape: tuple[int, ...]) -> None:
        """Raises an error unless there is an array of this name and shape, without reading it."""
        self._check_exists(name)
        self._check(name, tuple(self._file_of[name].get_slice(name).get_shape()), shape)

    def _check_exists(self, name: str) -> None:
        if name not in self._file_of:
            raise CaptionGANError(
                f"{self.path / WEIGHTS} has no {name}, which a {self.config.get('model_type')} of "
                f"{CONFIG} has; the files belong to different networks."
            )

    def _check(self, name: str, found: tuple[int, ...], expected: tuple[int, ...]) -> None:
        if found != expected:
            raise CaptionGANError(
                f"{self.path / WEIGHTS}: {name} gives {found}, but {CONFIG} expects {expected}; "
                "the files belong to different networks."
            )

    def assign_dense(self, layer: keras.layers.Layer, name: str) -> None:
        """Sets a dense layer, or a projection of attention heads, from `name`.weight and .bias."""
        self.assign(
            layer.kernel, f"{name}.weight", lambda array: in_shape_of(layer.kernel, array.T)
        )
        if layer.bias is not None:
            self.assign(layer.bias, f"{name}.bias", lambda array: in_shape_of(layer.bias, array))

    def assign_norm(self, layer: keras.layers.LayerNormalization, name: str) -> None:
        """Sets a layer normalisation."""
        self.assign(layer.gamma, f"{name}.weight")
        self.assign(layer.beta, f"{name}.bias")


def in_shape_of(variable: keras.Variable, array: np.ndarray) -> np.ndarray:
    """The array in the variable's shape, which tells heads apart, if it has as many numbers."""
    shape = tuple(variable.shape)
    return array.reshape(shape) if array.size == np.prod(shape) else array
