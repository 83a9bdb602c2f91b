"""Regions from files: what is read, what is refused."""

import keras
import numpy as np
import pytest

from caption_gan.checks import check
from caption_gan.config import Config, EncoderConfig
from caption_gan.errors import CaptionGANError
from caption_gan.models.encoder import build_encoder
from caption_gan.models.precomputed_encoder import PrecomputedEncoder


@pytest.fixture
def folder(tmp_path):
    for number, name in enumerate(("a", "b", "c.d")):
        np.save(tmp_path / f"{name}.npy", np.full((4, 3), number, np.float32))
    return tmp_path


def test_settings_choose_it_and_regions_are_read_by_image(folder):
    encoder = build_encoder(EncoderConfig(name="precomputed", regions=str(folder)))
    assert isinstance(encoder, PrecomputedEncoder)
    assert (encoder.regions_shape, encoder.grid) == ((4, 3), (2, 2))
    assert encoder.trainable_variables == []
    np.testing.assert_array_equal(encoder.read("b.jpg"), np.ones((4, 3)))
    np.testing.assert_array_equal(encoder.read("c.d.jpg"), np.full((4, 3), 2))
    assert encoder.read("z.jpg") is None


def test_one_vector_an_image_is_one_region(tmp_path):
    np.save(tmp_path / "a.npy", np.arange(5))
    encoder = PrecomputedEncoder(str(tmp_path))
    assert (encoder.regions_shape, encoder.grid) == ((1, 5), (1, 1))
    np.testing.assert_array_equal(encoder.read("a.png"), [[0, 1, 2, 3, 4]])


def test_config_round_trip(folder):
    encoder = PrecomputedEncoder(str(folder))
    twin = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(encoder))
    assert (twin.folder, twin.regions_shape) == (encoder.folder, encoder.regions_shape)


def test_the_fingerprint_follows_the_files(folder):
    before = PrecomputedEncoder(str(folder)).fingerprint()
    assert PrecomputedEncoder(str(folder)).fingerprint() == before
    np.save(folder / "e.npy", np.zeros((4, 3)))
    assert PrecomputedEncoder(str(folder)).fingerprint() != before


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (np.zeros((5, 3)), r"\(5, 3\), other files"),
        (np.zeros((4, 3, 2)), "must hold finite numbers"),
        (np.full((4, 3), np.nan), "must hold finite numbers"),
        (np.full((4, 3), 1e6), "within float16"),  # Would be infinite.
        (np.array([["red"] * 3] * 4), "cannot be read"),
    ],
)
def test_other_content_is_refused(folder, content, words):
    encoder = PrecomputedEncoder(str(folder))
    with np.errstate(over="ignore"):
        np.save(folder / "b.npy", content)
        with pytest.raises(CaptionGANError, match=rf"^[^\n]*b\.npy[^\n]*{words}[^\n]*$"):
            encoder.read("b.jpg")


def test_a_file_that_is_no_array_is_refused(folder):
    (folder / "a.npy").write_text("these are no numbers")
    with pytest.raises(CaptionGANError, match=r"^[^\n]*a\.npy cannot be read[^\n]*$"):
        PrecomputedEncoder(str(folder))


@pytest.mark.parametrize("name", ["nowhere", "."])
def test_a_folder_without_regions_is_refused(tmp_path, name):
    with pytest.raises(CaptionGANError, match="no folder with regions"):
        PrecomputedEncoder(str(tmp_path / name))


@pytest.mark.parametrize(
    ("settings", "words"),
    [({}, "encoder.regions is not set"), ({"regions": "r", "flip": True}, "no mirror image")],
)
def test_settings_that_do_not_fit(settings, words):
    encoder = EncoderConfig(name="precomputed", **settings)
    with pytest.raises(CaptionGANError, match=words):
        check(Config(encoder=encoder))
