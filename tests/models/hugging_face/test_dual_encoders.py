"""CLIP and SigLIP from Hugging Face folders, compared with transformers' own outputs.

`tools/hugging_face_golden.py` writes the files that they are compared with.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from caption_gan.config.models import EncoderConfig
from caption_gan.errors import CaptionGANError
from caption_gan.models.encoders.encoder import build_encoder
from caption_gan.models.hugging_face.dual_encoders import convert_dual_encoder
from caption_gan.models.hugging_face.weights_folder import WeightsFolder

keras_hub = pytest.importorskip("keras_hub", reason="keras-hub is not installed (extra `hub`)")
pytest.importorskip("safetensors", reason="safetensors is not installed (extra `hub`)")

GOLDEN = Path(__file__).parent / "golden"
MEAN, DEVIATION = np.array([0.4, 0.5, 0.6]), np.array([0.2, 0.3, 0.4])
LEADING = {"clip": 1, "siglip": 0}  # Tokens before those of patches.

kinds = pytest.mark.parametrize("kind", LEADING)


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


@kinds
def test_embeddings_of_images_and_texts_are_those_of_transformers(kind):
    golden = np.load(GOLDEN / kind / "expected.npz")
    model = convert_dual_encoder(keras_hub, WeightsFolder(GOLDEN / kind))
    images = np.array(model.get_vision_embeddings(golden["pixels"]))
    texts = np.array(model.get_text_embeddings(golden["token_ids"]))
    np.testing.assert_allclose(unit(images), golden["images"], atol=1e-5)
    np.testing.assert_allclose(unit(texts), golden["texts"], atol=1e-5)


def folder_of(kind: str, folder: Path) -> Path:
    """A copy of the golden folder, with pre-processing."""
    shutil.copytree(GOLDEN / kind, folder, dirs_exist_ok=True)
    config = {"image_mean": MEAN.tolist(), "image_std": DEVIATION.tolist()}
    (folder / "preprocessor_config.json").write_text(json.dumps(config))
    return folder


@kinds
def test_an_encoder_scales_pixels_and_gives_the_patches_of_transformers(kind, tmp_path):
    golden = np.load(GOLDEN / kind / "expected.npz")
    config = EncoderConfig(name="keras_hub", model=str(folder_of(kind, tmp_path)))
    encoder = build_encoder(config)
    images = 255 * (golden["pixels"] * DEVIATION + MEAN)
    tokens = golden["patches"]
    patches, first = tokens[:, LEADING[kind] :], np.repeat(tokens[:, :1], 4, axis=1)
    expected = np.concatenate([patches, first], axis=-1) if LEADING[kind] else patches
    np.testing.assert_allclose(encoder(images).features, expected, atol=2e-5)


def change(folder: Path, name: str, **settings) -> None:
    config = json.loads((folder / name).read_text())
    config["vision_config"].update(settings)
    (folder / name).write_text(json.dumps(config))


MISTAKES = {
    "no weights": (
        lambda folder: (folder / "model.safetensors").unlink(),
        "model.safetensors cannot be read",
    ),
    "no pre-processing": (
        lambda folder: (folder / "preprocessor_config.json").unlink(),
        "preprocessor_config.json cannot be read",
    ),
    "other shape": (
        lambda folder: change(folder, "config.json", image_size=24),
        r"vision_model.embeddings.position_embedding.weight gives \(5, 8\), .* expects \(10, 8\)",
    ),
    "other activation": (
        lambda folder: change(folder, "config.json", hidden_act="relu"),
        "hidden_act 'relu' .*has one of quick_gelu, gelu",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_folder_that_cannot_be_used_is_refused_in_one_line(mistake, tmp_path):
    make, words = MISTAKES[mistake]
    make(folder_of("clip", tmp_path))
    with pytest.raises(CaptionGANError, match=rf"^[^\n]*{words}[^\n]*$"):
        build_encoder(EncoderConfig(name="keras_hub", model=str(tmp_path)))
